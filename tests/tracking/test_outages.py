from __future__ import annotations

import logging
import math
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweep.tracking.mlflow as tracking_module
from sweep.errors import ConfigError
from sweep.tracking.mlflow import Tracker, Tracking
from sweep.tracking.store import connect
from tests.tracking.sweeps import RUNGS, Shop, Sweep, assert_stored_once, history, runs_of

OPERATIONS = st.lists(st.sampled_from(["0", "1", "fault"]), max_size=25)


@given(operations=OPERATIONS, flush_seconds=st.sampled_from([0.0, 10.0]))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_crashes_neither_lose_nor_double_a_point(
    shop: Shop, operations: list[str], flush_seconds: float
) -> None:
    sweep = Sweep()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking_module, "FLUSH_SECONDS", flush_seconds)
        tracker = sweep.tracker(shop, "crashes")
        for operation in operations:
            if operation == "fault":
                sweep.crash()
                tracker = sweep.tracker(shop, "crashes")
                tracker.sync(list(sweep.standings.values()))
            else:
                sweep.advance(operation, tracker)
        sweep.complete(tracker)
    assert_stored_once(shop, sweep)


class Outage:
    """Makes a tracker's client fail; `delivered` lets the request through and loses only the answer."""

    def __init__(self, tracker: Tracker) -> None:
        self.on = self.delivered = False
        client = tracker._runs.client
        for name in ("create_run", "log_batch", "set_terminated", "update_run", "search_runs", "log_text"):
            setattr(client, name, self._wrapped(getattr(client, name)))
        tracker._runs._set_status = self._wrapped(tracker._runs._set_status)

    def _wrapped(self, call):
        def attempt(*args, **kwargs):
            from mlflow.exceptions import MlflowException

            if self.on and not self.delivered:
                raise MlflowException("API request to http://me:secret@host/api failed")
            answer = call(*args, **kwargs)
            if self.on:
                raise MlflowException("API request to http://me:secret@host/api timed out")
            return answer

        return attempt


@given(operations=OPERATIONS, flush_seconds=st.sampled_from([0.0, 10.0]), delivered=st.booleans())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_outages_neither_lose_nor_double_a_point(
    shop: Shop, operations: list[str], flush_seconds: float, delivered: bool
) -> None:
    sweep = Sweep()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking_module, "FLUSH_SECONDS", flush_seconds)
        patch.setattr(tracking_module, "REST_SECONDS", 0.0)
        patch.setattr(tracking_module, "WARN_SECONDS", math.inf)
        tracker = sweep.tracker(shop, "outages")
        outage = Outage(tracker)
        outage.delivered = delivered
        for operation in operations:
            if operation == "fault":
                outage.on = not outage.on
            else:
                sweep.advance(operation, tracker)
        outage.on = False
        sweep.complete(tracker)
    assert_stored_once(shop, sweep)


def test_an_outage_is_told_once_a_minute_without_secrets(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "warnings")
    outage = Outage(tracker)
    outage.on = True
    with caplog.at_level(logging.WARNING, logger="sweep.tracking"):
        for name in ("0", "0", "1", "1"):
            sweep.advance(name, tracker)
    assert len(caplog.records) == 1
    assert "kept" in caplog.text or "sent again" in caplog.text
    assert "secret" not in caplog.text
    assert runs_of(shop, sweep)[1] == {}
    outage.on = False
    tracker.finish("KILLED")
    assert runs_of(shop, sweep)[1].keys() == {"0", "1"}


def test_a_server_that_hangs_blocks_a_call_only_briefly(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking_module, "CALL_SECONDS", 1)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    sweep = Sweep()
    tracker = sweep.tracker(shop, "hangs")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracking = Tracking(uri=uri, experiment="hangs", register=False)
        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"tracking\.uri=http://127.*set tracking\.uri=sqlite"):
            Tracker(tracking, sweep.record, sweep.standings.__getitem__)
        own, tracker._runs.client = tracker._runs.client, connect(uri)
        for name in ("0", "0", "1", "1"):
            sweep.advance(name, tracker)
        assert time.monotonic() - started < 4
    assert len(caplog.records) == 1
    tracker._runs.client = own
    sweep.complete(tracker)
    assert_stored_once(shop, sweep)


@pytest.mark.parametrize("victim", ["trial", "sweep"])
def test_a_run_deleted_in_the_ui_stops_nothing(shop: Shop, victim: str) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, f"deleted {victim}")
    for name in ("0", "0", "1", "1"):
        sweep.advance(name, tracker)
    parent, nested = runs_of(shop, sweep)
    shop.client.delete_run((nested["0"] if victim == "trial" else parent).info.run_id)
    tracker.log_metrics({"best": 1.0})
    tracker.log_metrics({"best": 1.0})
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    parent, nested = runs_of(shop, sweep)
    assert parent.data.metrics == {"best": 1.0}
    assert parent.data.params.keys() == sweep.record.params.keys()
    for run in nested.values():
        assert [examples for examples, _ in history(shop, run, "validation_loss")] == list(RUNGS)
        assert run.info.status == "FINISHED"
