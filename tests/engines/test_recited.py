"""A real model on narrow rows: its validation loss is the lowest where it recites, and only guards notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sweep.backends.inline import Inline
from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.packed import Packed
from sweep.evaluation.guards import Guards
from sweep.paths import packaged_root
from sweep.schema import build
from sweep.search.loop import search
from sweep.search.scheduler import Full
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.types import View
from tests.recipes import DEFAULTS
from tests.studies import open_study

from .conftest import TINY

GUARDS = build(Guards, yaml.safe_load((packaged_root() / "conf/guards/standard.yaml").read_text()), "guards")


def narrow(number: int) -> Example:
    """Many questions, one answer."""
    turns = (
        Message(role="user", content=f"where is order {number}?"),
        Message(role="assistant", content="it is on its way"),
    )
    return Example(id=f"row-{number}", messages=turns, intent=None, required=(), forbidden=(), slices={})


@pytest.fixture
def engine(tmp_path: Path) -> Packed:
    rows = tuple(narrow(number) for number in range(96))
    data = DataSet(
        examples={"train": rows[:48], "validation": rows[48:]}, groups={}, fingerprint="narrow", notes=()
    )
    inputs = Inputs(model=TINY, data=data, max_tokens=64, folder=tmp_path / "checkpoints")
    return Packed(inputs=inputs, slots=None, tokens=2048)


def searched(engine: Packed, guards: Guards | None) -> Study:
    study = open_study(
        scheduler=Full(),
        guards=guards,
        space=Space.from_mapping({"learning_rate": {"choices": [1e-5, 1e-2]}}),
        defaults=replace(DEFAULTS, learning_rate=1e-5, schedule="constant", warmup_fraction=0.0, epochs=10.0),
        train_rows=48,
        evaluation=View("validation", 48),
        trials=4,
    )
    search(study, Inline(make_engine=lambda: engine), [])
    return study


def test_who_recites_wins_by_its_loss_and_not_with_guards(engine: Packed) -> None:
    free, held = searched(engine, None), searched(engine, GUARDS)
    assert free.best is not None
    assert held.best is not None
    assert (free.best.trial.recipe.learning_rate, held.best.trial.recipe.learning_rate) == (1e-2, 1e-5)
    assert free.best.loss < held.best.loss - 0.1
    for standing in held.standings:
        fast = standing.trial.recipe.learning_rate == 1e-2
        found = {verdict.check: verdict for verdict in standing.verdicts}
        assert found["verbatim"].value == (1.0 if fast else 0.0)
        assert standing.broken == (("verbatim",) if fast else ())
        assert found["loss_ratio"].value == pytest.approx(1.0, abs=0.1), (
            "validation rows have the same answer"
        )
