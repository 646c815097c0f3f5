"""Who only reads a study sees what its driver knows, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from sweep.data.audit.finding import Audited, Row, judge
from sweep.errors import StudyError
from sweep.evaluation.goal import Goal
from sweep.search.notes import Asked, Handed, Notes
from sweep.search.storage import open_storage, open_stored
from sweep.search.stored import read_study
from sweep.search.study import Study
from sweep.types import Capacity, Job, Limit
from tests.confirmations import confirmation
from tests.studies import PLAN, SPACE, budget, open_study

Run = Callable[..., Study]

ASKED = Asked(
    purpose="For a test.",
    overrides=("+experiment=mine", "seed=1"),
    data="rows.csv",
    rows={"train": 70, "validation": 30},
    sampler="TPESampler()",
    scheduler="Asha(eta=3, rungs=3)",
    config="seed: 1\n",
    git_commit=None,
)
FINDING = judge(
    "leaks",
    0.5,
    Limit(warn=0.0, error=0.01),
    worse="above",
    message="half of the rows leak",
    mend="split by groups",
    rows=[Row("a", "How long?")],
)
GOAL = Goal(
    objective="net value", unit="EUR per ticket", better="higher", words="fewer", limits={"wrong_max": 0.1}
)
HANDED = Handed(
    trial="3",
    leader="2",
    best="sweeps/best/mine.yaml",
    adapter=None,
    look="mlflow ui",
    next="python -m sweep.train",
)


def test_a_reader_sees_what_the_driver_knows(run: Run) -> None:
    storage = InMemoryStorage()
    study = run(open_study(storage, devices=(2, 1)))
    stored = read_study(storage, PLAN.name)
    assert stored.standings == tuple(study.standings)
    assert stored.best == study.best
    assert (stored.ladder, stored.examples) == (study.ladder, study.expected_examples)
    assert (stored.trials, stored.devices, stored.seed) == (PLAN.trials, 3, PLAN.seed)
    assert stored.space.to_mapping() == SPACE.to_mapping()
    assert 0 < stored.seconds_spent == study.seconds_spent < stored.spent.seconds
    assert stored.spent.device_seconds == pytest.approx(3 * stored.spent.seconds)


def test_a_trial_whose_job_is_out_runs() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    assert read_study(storage, PLAN.name).standings == ()
    assert isinstance(study.next(Capacity()), Job)
    (standing,) = read_study(storage, PLAN.name).standings
    assert standing.state == "running"


def test_a_search_is_over_when_nothing_waits_and_its_winner_was_handed_over(run: Run) -> None:
    storage = InMemoryStorage()
    study = run(open_study(storage))
    assert study.best is not None
    assert not read_study(storage, PLAN.name).over
    leader = study.best.trial.id
    other = next(one.trial.id for one in study.standings if one.state == "complete" and one != study.best)
    study.note("handed", asdict(replace(HANDED, trial=leader, leader="99")))
    study.note("confirmation", asdict(confirmation(leader, leader="99")))
    stale = read_study(storage, PLAN.name)
    assert (stale.over, stale.handed, stale.confirmation) == (False, None, None)
    assert stale.winner == study.best
    study.note("handed", asdict(replace(HANDED, trial=other, leader=leader)))
    study.note("confirmation", asdict(confirmation(other, leader=leader)))
    told = read_study(storage, PLAN.name)
    assert told.over
    assert told.handed
    assert told.confirmation
    assert told.winner == study.standing(other), "chosen on other rows, not by the search"
    more = open_study(storage, trials=PLAN.trials + 1)
    assert isinstance(more.next(Capacity()), Job)
    assert not read_study(storage, PLAN.name).over


def test_a_note_of_another_version_counts_as_not_there() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    study.note("asked", {"overrides": ["+experiment=mine"], "data": "rows.csv", "colour": "red"})
    # As it was before finalists had seeds.
    study.note("confirmation", {"trial": "3", "best": None, "defaults": None, "difference": None})
    study.note("base_loss", 4.2)
    notes = read_study(storage, PLAN.name).notes
    assert (notes.asked, notes.confirmation, notes.base_loss) == (None, None, 4.2)


def test_notes_come_back_as_they_were(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweep.db'}"
    study = open_study(open_storage(url))
    assert set(asdict(read_study(open_stored(url), PLAN.name).notes).values()) == {None}
    found = confirmation("3")
    audited = Audited(findings=(FINDING,), allowed=("leaks",))
    study.note("asked", asdict(ASKED))
    study.note("audit", audited.as_json())
    study.note("baselines", {"found": [asdict(one) for one in found.baselines]})
    study.note("base_loss", 4.2)
    study.note("budget", asdict(budget(cost=20.0, price_per_device_hour=2.5)))
    study.note("goal", asdict(GOAL))
    study.note("confirmation", asdict(found))
    study.note("handed", asdict(HANDED))
    assert read_study(open_stored(url), PLAN.name).notes == Notes(
        asked=ASKED,
        audit=audited,
        budget=budget(cost=20.0, price_per_device_hour=2.5),
        baselines=found.baselines,
        base_loss=4.2,
        goal=GOAL,
        confirmation=found,
        handed=HANDED,
    )


def test_a_study_that_is_not_there_is_told_with_those_that_are() -> None:
    storage = InMemoryStorage()
    open_study(storage)
    with pytest.raises(StudyError, match=f"no study named 'other' in the storage, which holds {PLAN.name}"):
        read_study(storage, "other")


def test_a_study_of_another_kind_is_refused() -> None:
    storage = InMemoryStorage()
    open_study(storage)
    study = storage.get_study_id_from_name(PLAN.name)
    storage.get_study_user_attrs(study).pop("outline")
    with pytest.raises(StudyError, match="not written by a sweep of this version"):
        read_study(storage, PLAN.name)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    with pytest.raises(StudyError, match="no sweep has begun"):
        open_stored(f"sqlite:///{file}")
    assert not file.exists()


def test_a_study_in_memory_can_not_be_read_by_others() -> None:
    with pytest.raises(StudyError, match=re.escape("storage=sqlite:///sweep.db")):
        open_stored("memory")
