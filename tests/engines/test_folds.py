"""A trial's cross-validation on the tiny model is what a loop over its folds by hand finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sweep.backends.inline import Inline
from sweep.data.folds import pooled
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.evaluation.guards import Guards
from sweep.paths import packaged_root
from sweep.schema import build
from sweep.search.loop import search
from sweep.search.scheduler import Full
from sweep.search.space import Space
from sweep.types import Engine, Job, Progress, Report, Standing, Trial, View
from tests.contracts.engine import RECIPE, reports
from tests.studies import open_study

from .conftest import tiny_inputs

FOLDS = 3
HORIZON = 24
SHORT = replace(RECIPE, epochs=HORIZON / 64)
MakeEngine = Callable[[Inputs], Engine]


def packed(inputs: Inputs) -> Engine:
    return Packed(inputs=inputs, slots=2, tokens=256)


def solo(inputs: Inputs) -> Engine:
    return Solo(inputs=inputs, micro_batch=8)


@pytest.fixture(params=[packed, solo])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def folded(tmp_path: Path) -> Inputs:
    inputs = tiny_inputs(tmp_path)
    return replace(inputs, data=pooled(inputs.data, folds=FOLDS, seed=0))


class Heard:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            self.reports.append(event)


def searched(inputs: Inputs, make_engine: MakeEngine, *observers: Heard, **plan: object) -> list[Standing]:
    """Two trials, each in all folds."""
    study = open_study(
        scheduler=Full(),
        folds=FOLDS,
        space=Space.from_mapping({"learning_rate": {"choices": [1e-3, 3e-3]}}),
        defaults=SHORT,
        trials=2,
        train_rows=96,
        evaluation=View("validation", 32),
        **plan,
    )
    search(study, Inline(make_engine=lambda: make_engine(inputs)), observers)
    return list(study.standings)


def by_hand(inputs: Inputs, fold: int, folder: Path) -> Inputs:
    """The same rows as plain train and validation splits."""
    data, pool = inputs.data, inputs.data.examples["train"]
    inside = [row for row in pool if data.folds[row.id] == fold]
    outside = [row for row in pool if data.folds[row.id] != fold]
    splits = {**data.examples, "train": tuple(outside), "validation": tuple(inside)}
    plain = DataSet(examples=splits, groups=data.groups, fingerprint=f"by hand {fold}", notes=())  # type: ignore[arg-type]
    return replace(inputs, data=plain, folder=folder / str(fold))


def test_a_trials_loss_is_that_of_a_loop_over_the_folds(
    folded: Inputs, make_engine: MakeEngine, tmp_path: Path
) -> None:
    for standing in searched(folded, make_engine):
        losses = []
        for fold in range(FOLDS):
            engine = make_engine(by_hand(folded, fold, tmp_path / standing.trial.id))
            trial = Trial(
                id="by hand", number=None, recipe=standing.trial.recipe, seed=standing.trial.seed, base="tiny"
            )
            alone = Job(
                id="by hand",
                attempt=0,
                trial=trial,
                start=0,
                stop=HORIZON,
                horizon=HORIZON,
                checkpoint=None,
                train=View("train"),
                evaluation=View("validation"),
            )
            (report,) = reports(engine, alone)
            engine.close()
            assert report.validation_loss is not None
            losses.append(report.validation_loss)
        assert list(standing.values.values()) == pytest.approx(losses, rel=1e-5)
        assert standing.loss == pytest.approx(sum(losses) / FOLDS, rel=1e-5)
        assert max(losses) - min(losses) > 1e-4, "else folds are not told apart"


def test_the_pools_tokens_are_kept_once(folded: Inputs, make_engine: MakeEngine) -> None:
    searched(folded, make_engine)
    kept = sorted(path.name.partition("-")[0] for path in (folded.folder / ".tokens").glob("[!.]*"))
    assert kept == ["train"]


@pytest.fixture
def guards() -> Guards:
    standard = yaml.safe_load((packaged_root() / "conf/guards/standard.yaml").read_text())
    return build(Guards, {**standard, "rows": 12, "continued": 6}, "guards")


def test_a_folds_probe_takes_seen_rows_and_rows_of_the_fold(
    folded: Inputs, make_engine: MakeEngine, guards: Guards
) -> None:
    heard = Heard()
    standings = searched(folded, make_engine, heard, guards=guards)
    for number in ("0", "1"):
        for fold, report in enumerate(one for one in heard.reports if one.trial == number):
            sides = {
                split: {folded.data.folds[row.row] for row in report.probed if row.split == split}
                for split in ("train", "validation")
            }
            assert sides["validation"] == {fold}
            assert fold not in sides["train"]
            assert len(report.probed) == 2 * 12 // FOLDS
            assert {row.row for row in report.rows} == {
                row for row, place in folded.data.folds.items() if place == fold
            }
    assert all({verdict.check for verdict in s.verdicts} >= {"loss_ratio", "min_k"} for s in standings)
