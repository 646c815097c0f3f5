from __future__ import annotations

import logging
import math
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweep.tracking.mlflow as tracking_module
import sweep.tracking.writer as writer_module
from sweep.errors import ConfigError
from sweep.tracking.journal import Entry
from sweep.tracking.mlflow import Tracker
from sweep.tracking.store import client_of
from tests.tracking.sweeps import RUNGS, Shop, Sweep, assert_stored_once, history, runs_of

CALLS = ("create_run", "log_batch", "log_inputs", "log_artifact", "search_runs", "delete_run")


class Outage:
    """Makes the store of a tracker fail, before a request is done or behind it.

    after: requests that still go through. delivered: the request that fails is done, its answer lost.
    """

    def __init__(self, tracker: Tracker, *, failure: BaseException) -> None:
        self.after = math.inf
        self.delivered = False
        self._failure = failure
        self._runs = tracker._writer._runs
        client = self._runs._connected = client_of(self._runs.tracking.uri)
        for name in CALLS:
            setattr(client, name, self._wrapped(getattr(client, name)))
        self._runs._show = self._wrapped(self._runs._show)

    def mend(self) -> None:
        self.after = math.inf

    def _wrapped(self, call):
        def attempt(*args, **kwargs):
            self.after -= 1
            if self.after >= 0:
                return call(*args, **kwargs)
            if self.delivered:
                call(*args, **kwargs)
            raise self._failure

        return attempt


def unanswered() -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException("API request to http://me:secret@host/api failed")


def die(tracker: Tracker, after: int, *, delivered: bool) -> None:
    """Kill the writer at a request, if it comes to so many; nothing of it runs any further."""
    outage = Outage(tracker, failure=SystemExit())
    outage.after, outage.delivered = after, delivered
    tracker._writer.hurry()
    while tracker._writer._thread.is_alive() and not tracker.drain(0.05):
        pass
    tracker.close()


STEPS = st.sampled_from(["0", "1"])
KILLS = st.tuples(st.integers(0, 12), st.booleans())
TORN = st.tuples(st.sampled_from(["journal", "sent", "both", "lost"]), st.floats(0, 1))


@pytest.mark.filterwarnings("ignore:Exception in thread mlflow")
@given(operations=st.lists(st.one_of(STEPS, STEPS, STEPS, KILLS, TORN), max_size=25))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_writer_killed_anywhere_neither_loses_nor_doubles_a_point(
    shop: Shop, operations: list[str | tuple[int, bool] | tuple[str, float]]
) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "kills")
    for operation in operations:
        if isinstance(operation, str):
            sweep.advance(operation, tracker)
            continue
        first, second = operation
        if isinstance(first, int):
            die(tracker, first, delivered=bool(second))
        else:
            tear(sweep, shop, tracker, first, second)
        sweep.crash()
        tracker = sweep.tracker(shop, "kills")
        tracker.sync(list(sweep.standings.values()))
    sweep.complete(tracker)
    tracker.close()
    assert_stored_once(shop, sweep)


def tear(sweep: Sweep, shop: Shop, tracker: Tracker, what: str, share: float) -> None:
    """Leave half a line behind a killed tracker's journal, cut its note, or cut both once all is sent."""
    folder = sweep.journal(shop)
    journal, sent = folder / "journal.jsonl", folder / "sent.json"
    if what == "lost":
        assert tracker.drain(60)
    tracker.close()
    whole = journal.read_bytes()
    if what in ("journal", "both"):
        line = whole.splitlines()[-1]
        journal.write_bytes(whole + line[: round(len(line) * share)])
    if what == "lost":
        journal.write_bytes(whole[: round(len(whole) * share)])
    if what in ("sent", "both") and sent.exists():
        noted = sent.read_bytes()
        sent.write_bytes(noted[: round(len(noted) * share)])


@given(operations=st.lists(st.one_of(STEPS, KILLS), max_size=25))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_outages_neither_lose_nor_double_a_point(
    shop: Shop, operations: list[str | tuple[int, bool]]
) -> None:
    sweep = Sweep()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "RETRY_SECONDS", 0.01)
        tracker = sweep.tracker(shop, "outages")
        outage = Outage(tracker, failure=unanswered())
        for operation in operations:
            if isinstance(operation, str):
                sweep.advance(operation, tracker)
            elif outage.after != math.inf:
                outage.mend()
            else:
                outage.after, outage.delivered = operation
                tracker.drain(0.05)
        outage.mend()
        sweep.complete(tracker)
    tracker.close()
    assert_stored_once(shop, sweep)


def test_an_outage_is_told_when_it_begins_and_when_it_ends_without_secrets(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.01)
    sweep = Sweep()
    tracker = sweep.tracker(shop, "warnings")
    assert tracker.drain(60)
    outage = Outage(tracker, failure=unanswered())
    outage.after = 0
    with caplog.at_level(logging.WARNING, logger="sweep.tracking"):
        for name in ("0", "0", "1", "1"):
            sweep.advance(name, tracker)
            assert not tracker.drain(0.05)
        assert outage.after < -3
        assert len(caplog.records) == 1
        assert f"kept in {sweep.journal(shop)}" in caplog.text
        assert runs_of(shop, sweep)[1] == {}
        outage.mend()
        assert tracker.drain(60)
        tracker.finish("KILLED")
    first, second = (record.getMessage() for record in caplog.records)
    assert "could not be written" in first
    assert "answers again" in second
    assert "secret" not in caplog.text
    assert runs_of(shop, sweep)[1].keys() == {"0", "1"}


def test_what_a_sweep_could_not_send_is_told_at_its_end_and_sent_by_the_next_start(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "end")
    assert tracker.drain(60)
    Outage(tracker, failure=unanswered()).after = 0
    while any(standing.state != "complete" for standing in sweep.standings.values()):
        for name in sweep.trials:
            sweep.advance(name, tracker)
    tracker.log_text("report.html", "<p>found</p>")
    with monkeypatch.context() as patch:
        patch.setattr(tracking_module, "DRAIN_SECONDS", 0.1)
        tracker.finish("FINISHED")
    # Six steps, three rungs and a final loss for each of two trials.
    told = "still lacks 20 points and 1 artifact of 3 runs"
    assert [told in record.getMessage() for record in caplog.records] == [False, True]
    assert "run the same command again" in caplog.text
    again = sweep.tracker(shop, "end")
    again.sync(list(sweep.standings.values()))
    again.finish("FINISHED")
    assert_stored_once(shop, sweep)
    assert "report.html" in {file.path for file in shop.client.list_artifacts(again.parent_run_id)}


def test_a_server_that_hangs_holds_up_no_event(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were one of them to wait, it would wait for ever."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    sweep = Sweep()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_shop = Shop(f"http://127.0.0.1:{silent.getsockname()[1]}", shop.folder)
        with pytest.raises(ConfigError, match=r"tracking\.uri=http://127.*set tracking\.uri=sqlite"):
            sweep.tracker(silent_shop, "hangs")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
        tracker = sweep.tracker(shop, "hangs")
        assert tracker.drain(60)
        runs = tracker._writer._runs
        own, runs._connected = runs._connected, client_of(silent_shop.uri)
        for name in ("0", "0", "1", "1"):
            sweep.advance(name, tracker)
            assert not tracker.drain(0.1)
    # Closing the socket broke the request off.
    runs._connected = own
    sweep.complete(tracker)
    assert_stored_once(shop, sweep)


def test_the_environment_can_not_make_the_writer_lose_what_it_sends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    sweep = Sweep()
    tracker = sweep.tracker(shop, "async")
    sweep.complete(tracker)
    assert_stored_once(shop, sweep)


@pytest.mark.parametrize("victim", ["trial", "sweep"])
def test_a_run_deleted_in_the_ui_comes_back_whole(shop: Shop, victim: str) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, f"deleted {victim}")
    for name in ("0", "0", "1", "1"):
        sweep.advance(name, tracker)
    assert tracker.drain(60)
    parent, nested = runs_of(shop, sweep)
    shop.client.delete_run((nested["0"] if victim == "trial" else parent).info.run_id)
    tracker.log_metrics({"best": 1.0})
    tracker.log_metrics({"best": 1.0})
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    assert_stored_once(shop, sweep)
    parent, nested = runs_of(shop, sweep)
    assert tracker.parent_run_id == parent.info.run_id
    assert parent.data.metrics == {"best": 1.0}
    assert parent.data.params.keys() == sweep.record.params.keys()
    for run in nested.values():
        assert [examples for examples, _ in history(shop, run, "validation_loss")] == list(RUNGS)


def test_only_what_the_store_refuses_is_left_out(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A parameter that somebody else has set; MLflow takes no second value."""
    sweep = Sweep()
    tracker = sweep.tracker(shop, "refused")
    sweep.advance("0", tracker)
    assert tracker.drain(60)
    shop.client.log_param(runs_of(shop, sweep)[1]["0"].info.run_id, "owner", "somebody")
    outage = Outage(tracker, failure=unanswered())
    outage.after = 0
    for _ in range(4):
        sweep.advance("0", tracker)
    tracker._writer._journal.append(Entry(run="0", params={"owner": "nobody"}))
    with caplog.at_level(logging.WARNING, logger="sweep.tracking"):
        outage.mend()
        sweep.complete(tracker)
        tracker.close()
    assert_stored_once(shop, sweep)
    (told,) = [text for text in caplog.messages if "refuses" in text]
    assert "refuses a change of run 0: " in told
