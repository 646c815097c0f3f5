from __future__ import annotations

import contextlib
import json
import logging
import math
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweep.tracking.mlflow as tracking_module
from sweep.errors import ConfigError
from sweep.tracking.mlflow import SweepRecord, Tracker, Tracking, connect, redact
from sweep.types import Progress, Recipe, Report, Standing, Trial

RECIPE = Recipe(
    learning_rate=3e-4,
    batch_size=2,
    weight_decay=0.1,
    lora_rank=16,
    lora_alpha=32.0,
    lora_dropout=0.0,
    target_modules=("q_proj", "v_proj"),
    rslora=False,
    warmup_fraction=0.1,
    schedule="constant",
    epochs=1.0,
    max_gradient_norm=1.0,
)
RUNGS = (4, 8, 12)
CURVE = ("train_loss", "gradient_norm", "learning_rate")


class Shop(NamedTuple):
    """One MLflow store on disk; tests keep apart by experiment."""

    uri: str
    folder: Path

    @property
    def client(self):
        return connect(self.uri)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with contextlib.chdir(folder):
        connect(uri)
    return Shop(uri, folder)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "tracking must not write into the working directory of a test"


@dataclass
class Sweep:
    """A study in memory whose trials follow closed-form curves, and the record that names it."""

    trials: tuple[str, ...] = ("0", "1")
    name: str = "support_bot"
    standings: dict[str, Standing] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    fingerprint: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        for name in self.trials:
            trial = Trial(id=name, number=int(name), recipe=RECIPE, seed=0, base="tiny")
            self.standings[name] = Standing(trial=trial, state="paused", reports=())
            self.at[name] = 0

    @property
    def record(self) -> SweepRecord:
        return SweepRecord(
            name=self.name,
            fingerprint=self.fingerprint,
            params={"budget.trials": 2, "objective": "validation_loss"},
            composed_config="budget:\n  trials: 2\n",
            git_commit="0123abc",
            data_name="tickets",
            data_source="data/tickets.jsonl",
            data_fingerprint="f" * 64,
            rows_by_split={"train": 80, "validation": 20},
        )

    def tracker(self, shop: Shop, experiment: str) -> Tracker:
        tracking = Tracking(uri=shop.uri, experiment=experiment, register=False)
        return Tracker(tracking, self.record, self.standings.__getitem__)

    def advance(self, name: str, tracker: Tracker) -> None:
        """One optimiser step; at a rung also the report."""
        standing = self.standings[name]
        if standing.state == "complete":
            return
        self.at[name] += RECIPE.batch_size
        self.standings[name] = replace(standing, state="running")
        tracker.log(step(name, self.at[name]))
        if self.at[name] in RUNGS:
            state = "complete" if self.at[name] == RUNGS[-1] else "paused"
            event = rung(name, self.at[name])
            self.standings[name] = replace(standing, state=state, reports=(*standing.reports, event))
            tracker.log(event)

    def crash(self) -> None:
        """Jobs start again at the last rung that the study recorded."""
        for name, standing in self.standings.items():
            self.at[name] = standing.reports[-1].examples_seen if standing.reports else 0

    def complete(self, tracker: Tracker) -> None:
        while any(standing.state != "complete" for standing in self.standings.values()):
            for name in self.trials:
                self.advance(name, tracker)
        tracker.sync(list(self.standings.values()))


def step(name: str, examples: int, **changes: float) -> Progress:
    values = {
        "train_loss": 2 + int(name) + 1 / examples,
        "gradient_norm": 1 / examples,
        "learning_rate": 3e-4,
    }
    return Progress(
        job=f"{name}@{examples}", trial=name, examples_seen=examples, tokens=7, **values | changes
    )


def rung(name: str, examples: int, **changes: object) -> Report:
    report = Report(
        job=f"{name}@{examples}",
        trial=name,
        attempt=0,
        examples_seen=examples,
        state="reached",
        validation_loss=2.5 + int(name) - examples / 100,
        bits_per_byte=1.1,
        metrics={"accuracy@1": 0.5},
        seconds=2.0,
        tokens=50,
        peak_bytes=3 * 2**20,
        ended_ms=1_700_000_000_000 + 1000 * examples,
    )
    return replace(report, **changes)


def runs_of(shop: Shop, sweep: Sweep):
    """The parent run and the nested ones by trial; fails where one of them exists twice."""
    client = shop.client
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(everywhere, f"tags.`sweep.fingerprint` = '{sweep.fingerprint}'")
    nested = client.search_runs(everywhere, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    by_trial = {run.data.tags["sweep.trial"]: run for run in nested}
    assert len(by_trial) == len(nested)
    return parent, by_trial


def history(shop: Shop, run, key: str) -> list[tuple[int, float]]:
    points = shop.client.get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def assert_stored_once(shop: Shop, sweep: Sweep) -> None:
    _, nested = runs_of(shop, sweep)
    assert nested.keys() == set(sweep.trials)
    for name, run in nested.items():
        steps = [step(name, examples) for examples in range(2, RUNGS[-1] + 1, 2)]
        for key in CURVE:
            expected = [(event.examples_seen, getattr(event, key)) for event in steps]
            assert history(shop, run, key) == expected
        reports = [rung(name, examples) for examples in RUNGS]
        for key in ("validation_loss", "bits_per_byte", "seconds", "examples_seen"):
            expected = [(report.examples_seen, getattr(report, key)) for report in reports]
            assert history(shop, run, key) == expected
        assert history(shop, run, "final_validation_loss") == [(12, reports[-1].validation_loss)]
        assert (run.info.status, run.data.tags["sweep.state"]) == ("FINISHED", "complete")


def test_the_module_loads_without_mlflow() -> None:
    probe = "import sys, sweep.tracking.mlflow, sweep.tracking.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_opening_a_new_store_prints_nothing(tmp_path: Path) -> None:
    (folder := tmp_path / "fresh").mkdir()
    code = (
        "from sweep.tracking.mlflow import connect; connect('sqlite:///made/here.db').create_experiment('a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert (folder / "made/here.db").is_file()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()


def test_a_sweep_is_one_parent_with_a_nested_run_per_trial(shop: Shop) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "shape")
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    assert_stored_once(shop, sweep)
    parent, nested = runs_of(shop, sweep)
    assert parent.info.run_id == tracker.parent_run_id
    assert parent.info.run_name == "support_bot"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"budget.trials": "2", "objective": "validation_loss"}
    assert parent.data.tags["mlflow.source.git.commit"] == "0123abc"
    run = nested["1"]
    assert run.info.run_name == "trial 1 · lr 3e-4 · r16 · b2"
    assert run.data.params["target_modules"] == "q_proj, v_proj"
    assert run.data.params["learning_rate"] == "0.0003"
    assert run.info.end_time == rung("1", 12).ended_ms
    metrics = run.data.metrics
    assert (metrics["peak_mib"], metrics["tokens_per_second"]) == (3.0, 25.0)
    assert (metrics["total_tokens"], metrics["accuracy_1"]) == (150.0, 0.5)


def test_the_parent_shows_the_data_and_the_config(shop: Shop) -> None:
    sweep = Sweep(trials=())
    tracker = sweep.tracker(shop, "data")
    (used,) = runs_of(shop, sweep)[0].inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("tickets", "f" * 36)
    assert json.loads(used.dataset.source) == {"uri": "data/tickets.jsonl"}
    assert json.loads(used.dataset.profile) == {"train": 80, "validation": 20}
    config = shop.client.download_artifacts(tracker.parent_run_id, "config.yaml", str(shop.folder))
    assert Path(config).read_text() == sweep.record.composed_config


def test_a_name_with_both_quotes_is_found_again(shop: Shop) -> None:
    sweep = Sweep(trials=(), name="""it's a "sweep" 100%""")
    first = sweep.tracker(shop, "quotes").parent_run_id
    assert sweep.tracker(shop, "quotes").parent_run_id == first
    other = replace(sweep, name="it's")
    assert other.tracker(shop, "quotes").parent_run_id != first


def test_a_resumed_sweep_may_have_another_budget(shop: Shop) -> None:
    sweep = Sweep(trials=())
    first = sweep.tracker(shop, "budget")
    first.finish("FINISHED")
    larger = replace(sweep.record, params={"budget.trials": 9, "new": 1}, composed_config="later: true\n")
    tracking = Tracking(uri=shop.uri, experiment="budget", register=False)
    second = Tracker(tracking, larger, sweep.standings.__getitem__)
    parent, _ = runs_of(shop, sweep)
    assert second.parent_run_id == first.parent_run_id
    assert parent.info.status == "RUNNING"
    assert parent.data.params == {"budget.trials": "2", "objective": "validation_loss", "new": "1"}


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
        for name in ("create_run", "log_batch", "set_terminated", "update_run", "search_runs", "log_text"):
            setattr(tracker._client, name, self._wrapped(getattr(tracker._client, name)))

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


def test_sync_alone_restores_every_rung(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    reports = tuple(rung("0", examples) for examples in RUNGS)
    sweep.standings["0"] = replace(sweep.standings["0"], state="complete", reports=reports)
    for _ in range(2):
        sweep.tracker(shop, "sync").sync(list(sweep.standings.values()))
    run = runs_of(shop, sweep)[1]["0"]
    assert history(shop, run, "validation_loss") == [(r.examples_seen, r.validation_loss) for r in reports]
    assert run.info.start_time == reports[0].ended_ms - 2000


def test_the_very_same_points_sent_again_add_nothing_to_the_store(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    reports = tuple(rung("0", examples) for examples in RUNGS)
    sweep.standings["0"] = replace(sweep.standings["0"], state="complete", reports=reports)
    tracker = sweep.tracker(shop, "again")
    tracker.sync(list(sweep.standings.values()))
    stored = tracker._store.trials["0"]
    stored.rung, stored.tags = -1, {}
    tracker.sync(list(sweep.standings.values()))
    run = runs_of(shop, sweep)[1]["0"]
    for key in run.data.metrics:
        assert len(history(shop, run, key)) == (1 if key == "final_validation_loss" else len(RUNGS))


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
        own, tracker._client = tracker._client, connect(uri)
        for name in ("0", "0", "1", "1"):
            sweep.advance(name, tracker)
        assert time.monotonic() - started < 4
    assert len(caplog.records) == 1
    tracker._client = own
    sweep.complete(tracker)
    assert_stored_once(shop, sweep)


def test_values_that_are_not_finite_are_counted_not_stored(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    tracker = sweep.tracker(shop, "nonfinite")
    tracker.log(step("0", 2))
    tracker.log(step("0", 4, train_loss=math.nan, gradient_norm=math.inf))
    bad = rung("0", 4, validation_loss=math.nan)
    sweep.standings["0"] = replace(
        sweep.standings["0"], state="diverged", reports=(bad,), reason="loss is NaN, lower learning_rate"
    )
    tracker.log(bad)
    for _ in range(2):
        later = sweep.tracker(shop, "nonfinite")
        later.log(step("0", 4, train_loss=math.nan, gradient_norm=math.inf))
        later.sync(list(sweep.standings.values()))
    run = runs_of(shop, sweep)[1]["0"]
    assert [point for point, _ in history(shop, run, "train_loss")] == [2]
    assert "validation_loss" not in run.data.metrics
    assert run.data.tags["sweep.nonfinite_points"] == "3"
    assert run.data.tags["sweep.reason"] == "loss is NaN, lower learning_rate"
    assert run.info.status == "FAILED"


def test_requests_stay_below_the_limits_of_mlflow(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    many = {f"key_{index}": index for index in range(250)}
    tracking = Tracking(uri=shop.uri, experiment="limits", register=False)
    tracker = Tracker(tracking, replace(sweep.record, params=many), sweep.standings.__getitem__)
    for examples in range(1, 1501):
        tracker.log(step("0", examples))
    sweep.standings["0"] = replace(sweep.standings["0"], state="failed", reason="x" * 20_000)
    tracker.log(rung("0", 1500, state="failed", error="x" * 20_000))
    parent, nested = runs_of(shop, sweep)
    assert len(parent.data.params) == 250
    for key in CURVE:
        assert len(history(shop, nested["0"], key)) == 1500
    assert nested["0"].data.tags["sweep.reason"] == "x" * tracking_module.REASON_LENGTH


def test_finish_leaves_no_run_running(shop: Shop) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "finish")
    sweep.advance("0", tracker)
    sweep.advance("0", tracker)
    sweep.advance("1", tracker)
    assert [run.info.status for run in runs_of(shop, sweep)[1].values()].count("RUNNING") == 1
    tracker.finish("KILLED")
    parent, nested = runs_of(shop, sweep)
    assert parent.info.status == "KILLED"
    assert {name: run.info.status for name, run in nested.items()} == {"0": "SCHEDULED", "1": "KILLED"}
    again = sweep.tracker(shop, "finish")
    sweep.crash()
    sweep.complete(again)
    again.finish("FINISHED")
    assert runs_of(shop, sweep)[0].info.status == "FINISHED"
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
    for run in nested.values():
        assert [examples for examples, _ in history(shop, run, "validation_loss")] == list(RUNGS)
        assert run.info.status == "FINISHED"


def test_a_deleted_experiment_is_an_error_at_the_door(shop: Shop) -> None:
    sweep = Sweep()
    sweep.tracker(shop, "gone")
    shop.client.delete_experiment(shop.client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(ConfigError, match=r"tracking\.experiment=gone was deleted"):
        sweep.tracker(shop, "gone")


@pytest.mark.parametrize(
    "uri",
    ["nonsense://x", "file:///tmp/mlruns", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////proc/no/x.db"],
)
def test_an_unusable_address_is_an_error_without_its_password(uri: str) -> None:
    sweep = Sweep()
    with pytest.raises(ConfigError, match=r"tracking\.uri=.* could not be opened") as caught:
        sweep.tracker(Shop(uri, Path()), "x")
    assert "secret" not in str(caught.value)


def test_artifacts_of_the_sweep_replace_earlier_ones(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sweep = Sweep(trials=())
    file = tmp_path_factory.mktemp("files") / "notes.txt"
    file.write_text("notes")
    for value in (1, 2):
        tracker = sweep.tracker(shop, "artifacts")
        tracker.log_table("trials", pd.DataFrame({"trial": [0, 1], "loss": [value, math.nan]}))
        tracker.log_figure("curve", go.Figure(go.Scatter(y=[1, value])))
        tracker.log_text("report.md", f"# {value}")
        tracker.log_file(file, "extra")
        tracker.log_metrics({"confirm_loss": 1.5, "bad": math.nan, "accuracy@1": 0.5})
    fetched = Path(shop.client.download_artifacts(tracker.parent_run_id, "", str(shop.folder)))
    assert json.loads((fetched / "tables/trials.json").read_text()) == {
        "columns": ["trial", "loss"],
        "data": [[0, 2.0], [1, None]],
    }
    page = (fetched / "plots/curve.html").read_text()
    assert len(page) > 1_000_000
    assert 'src="http' not in page
    assert (fetched / "report.md").read_text() == "# 2"
    assert (fetched / "extra/notes.txt").read_text() == "notes"
    parent, _ = runs_of(shop, sweep)
    assert history(shop, parent, "confirm_loss") == [(0, 1.5)]
    assert parent.data.metrics == {"confirm_loss": 1.5, "accuracy_1": 0.5}
    shown = json.loads(parent.data.tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "tables/trials.json", "type": "table"}]


def test_passwords_in_addresses_reach_no_run(shop: Shop) -> None:
    secret = "postgresql://me:hunter2@host/db"
    sweep = Sweep(trials=("0",))
    record = replace(
        sweep.record, params={"storage": secret}, composed_config=f"storage: {secret}\n", data_source=secret
    )
    tracking = Tracking(uri=shop.uri, experiment="secrets", register=False)
    tracker = Tracker(tracking, record, sweep.standings.__getitem__)
    sweep.standings["0"] = replace(sweep.standings["0"], state="failed", reason=f"no {secret}")
    tracker.sync(list(sweep.standings.values()))
    parent, nested = runs_of(shop, sweep)
    config = shop.client.download_artifacts(parent.info.run_id, "config.yaml", str(shop.folder))
    seen = f"{parent.to_dictionary()} {parent.inputs.to_dictionary()} {nested['0'].to_dictionary()}"
    assert "***@host" in seen
    assert "hunter2" not in seen + Path(config).read_text()


def test_the_ui_command_shows_this_store(shop: Shop) -> None:
    tracker = Sweep(trials=()).tracker(shop, "ui")
    assert tracker.ui_command() == f"mlflow ui --backend-store-uri {shop.uri}"
    assert redact("http://me:pass@host:5000/a b@c") == "http://***@host:5000/a b@c"
