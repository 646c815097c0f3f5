"""A real server that dies, hangs and comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sweep.tracking.mlflow as tracking_module
import sweep.tracking.writer as writer_module
from tests.tracking.server import Server
from tests.tracking.sweeps import Shop, Sweep, assert_stored_once, runs_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: it takes 14 s to start."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    running.start()
    return running


def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    sweep, shop = Sweep(), Shop(server.uri, server.folder)
    tracker = sweep.tracker(shop, "killed")
    for name in ("0", "0", "1", "1"):
        sweep.advance(name, tracker)
    assert tracker.drain(60)
    # With requests under way.
    sweep.advance("0", tracker)
    tracker.sync(list(sweep.standings.values()))
    server.kill()
    for name in ("1", "0", "1"):
        sweep.advance(name, tracker)
    tracker.log_text("notes.txt", "found while it was away")
    assert not tracker.drain(1)
    server.start()
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    assert_stored_once(shop, sweep)
    assert "notes.txt" in {file.path for file in shop.client.list_artifacts(tracker.parent_run_id)}
    assert ["answers again" in record.getMessage() for record in caplog.records] == [False, True]


def test_a_driver_goes_on_where_the_server_is_away_and_a_later_one_sends_it_all(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sweep, shop = Sweep(), Shop(server.uri, server.folder)
    first = sweep.tracker(shop, "away")
    assert first.drain(60)
    server.kill()
    sweep.advance("0", first)
    first.close()
    sweep.crash()
    second = sweep.tracker(shop, "away")
    assert second.parent_run_id == first.parent_run_id
    while any(standing.state != "complete" for standing in sweep.standings.values()):
        for name in sweep.trials:
            sweep.advance(name, second)
    with monkeypatch.context() as patch:
        patch.setattr(tracking_module, "DRAIN_SECONDS", 0.5)
        second.finish("FINISHED")
    assert "still lacks 20 points" in caplog.text
    server.start()
    third = sweep.tracker(shop, "away")
    third.sync(list(sweep.standings.values()))
    third.finish("FINISHED")
    assert_stored_once(shop, sweep)
    assert runs_of(shop, sweep)[0].info.status == "FINISHED"


def test_requests_that_a_hanging_server_answers_too_late_are_not_done_twice(server: Server) -> None:
    sweep, shop = Sweep(), Shop(server.uri, server.folder)
    tracker = sweep.tracker(shop, "hangs")
    assert tracker.drain(60)
    server.pause()
    for name in ("0", "1", "0", "1"):
        sweep.advance(name, tracker)
    assert not tracker.drain(5)
    server.go_on()
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    assert_stored_once(shop, sweep)


def test_another_store_gets_everything(server: Server, shop: Shop) -> None:
    sweep = Sweep()
    first = sweep.tracker(shop, "moves")
    for name in ("0", "0", "1"):
        sweep.advance(name, first)
    assert first.drain(60)
    first.close()
    sweep.crash()
    moved = Shop(server.uri, shop.folder)
    second = sweep.tracker(moved, "moves")
    sweep.complete(second)
    second.finish("FINISHED")
    assert_stored_once(moved, sweep)
    assert "config.yaml" in {file.path for file in moved.client.list_artifacts(second.parent_run_id)}
