"""A sweep in memory whose trials follow closed-form curves, what a store holds of it, and a result."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from sweep.tracking.mlflow import SweepRecord, Tracker, Tracking
from sweep.tracking.store import connect
from sweep.types import BestConfig, Progress, Report, Score, Standing, Trial, Verdict
from tests.recipes import DEFAULTS

RECIPE = replace(
    DEFAULTS, batch_size=2, weight_decay=0.1, target_modules=("q_proj", "v_proj"), schedule="constant"
)
RUNGS = (4, 8, 12)
# Trackers that were opened, for `close_all`.
OPEN: list[Tracker] = []
CURVE = ("train_loss", "gradient_norm", "learning_rate")
BEST = BestConfig(
    recipe=replace(
        DEFAULTS,
        learning_rate=1e-05,
        lora_dropout=0.1,
        target_modules=("q_proj", "v_proj"),
        schedule="wsd",
        epochs=1e16,
    ),
    model={"_target_": "sweep.engines.model.Pretrained", "path": "a/b", "revision": "12e4567", "dtype": "no"},
    experiment="support_bot",
    study="support_bot",
    trial=12,
    horizon=4096,
    stop=1024,
    unit=32,
    seed=0,
    data_fingerprint="1e10",
    fingerprint="12345e67" * 8,
    validation=Score(value=1.22, standard_error=0.012, examples=200, metrics={"bits_per_byte": 0.5}),
    confirm=Score(value=1.2345, standard_error=0.01, examples=400),
    default_confirm=Score(value=1.31, standard_error=0.011, examples=400),
    test=Score(value=1.2456, standard_error=0.02, examples=300),
    default_test=Score(value=1.32, standard_error=0.02, examples=300),
    baselines={"few_shot": Score(value=1.4, standard_error=0.03, examples=400, metrics={"resolved": 0.5})},
    decision="no_evidence",
    verdicts=(
        Verdict(
            check="beats_default",
            passed=False,
            severity="warn",
            value=0.1,
            limit=0.2,
            message="only 0.1\nbest: {trial: 99}",
        ),
    ),
    git_commit="0123456",
    mlflow_run=None,
    overrides=("+experiment=support_bot", "space.lora_rank=choice(8, 16)", "+best=earlier"),
)


class Shop(NamedTuple):
    """One MLflow store on disk; tests keep apart by experiment."""

    uri: str
    folder: Path

    @property
    def client(self):
        return connect(self.uri)


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

    def tracker(self, shop: Shop, experiment: str, **changes: object) -> Tracker:
        """changes: of the record. What a tracker before it did not send, this one does."""
        tracking = Tracking(uri=shop.uri, experiment=experiment, register=False)
        record = replace(self.record, **changes)
        OPEN.append(Tracker(tracking, record, self.standings.__getitem__, folder=self.folder(shop)))
        return OPEN[-1]

    def folder(self, shop: Shop) -> Path:
        """The experiment's."""
        return shop.folder / self.fingerprint

    def journal(self, shop: Shop) -> Path:
        """Where the last opened tracker keeps what it sends."""
        (folder,) = self.folder(shop).glob("tracking/*")
        return folder

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
            self.record_rungs()
            tracker.log(event)

    def record_rungs(self) -> None:
        """What a study writes down before anyone hears of a report: nothing, where no process dies."""

    def crash(self) -> None:
        """Jobs start again at the last rung that the study recorded."""
        for name, standing in self.standings.items():
            self.at[name] = standing.reports[-1].examples_seen if standing.reports else 0

    def complete(self, tracker: Tracker) -> None:
        while any(standing.state != "complete" for standing in self.standings.values()):
            for name in self.trials:
                self.advance(name, tracker)
        tracker.sync(list(self.standings.values()))
        assert tracker.drain(60)


def close_all() -> None:
    """As at the end of their processes: what they did not send yet, they do not send."""
    while OPEN:
        OPEN.pop().close()


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
