"""Finalists: fresh seeds, each job once whatever happens between, and one look at the test split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from sweep.data.baselines import ZeroShot
from sweep.errors import ConfigError, TrainingError
from sweep.evaluation.guards import Guards
from sweep.search.study import Study
from sweep.stages.confirm import Confirmed
from sweep.types import Job, View
from tests.stages.finished import (
    DATA,
    EXACT,
    WAYS,
    Watched,
    confirmed,
    finals,
    finished,
    synthetic,
    told,
    trainings,
    yardstick,
)


def test_finalists_and_defaults_are_trained_whole_with_the_same_fresh_seeds(
    study: Study, plain: tuple[Confirmed, list[Job]]
) -> None:
    found, jobs = plain
    best = sorted(study.standings, key=lambda standing: standing.loss)[:2]
    ran = trainings(jobs)
    assert list(ran) == [*(standing.trial.id for standing in best), "0"]
    seeds = [{name: job.trial.seed for name, job in of_trial.items()} for of_trial in ran.values()]
    assert seeds[0].keys() == {"seed1", "seed2"}
    assert seeds == [seeds[0]] * 3
    assert len({study.plan.seed, *(s.trial.seed for s in study.standings), *seeds[0].values()}) == 3
    for trial, of_trial in ran.items():
        for job in of_trial.values():
            assert job.trial.recipe == study.standing(trial).trial.recipe
            assert (job.start, job.checkpoint, job.stop) == (0, None, study.ladder[-1])
            assert job.evaluation == View("confirm")
    assert [run.trial.id for run in found.runs] == [
        f"{trial}/{seed}" for trial in ran for seed in ("seed1", "seed2")
    ]
    assert found.winner.trial.id == f"{found.confirmation.trial}/seed1"
    assert Path(found.winner.reports[-1].checkpoint or "").is_dir()


def test_the_test_split_is_asked_of_winner_defaults_and_best_baseline_only(
    study: Study, guards: Guards, tmp_path: Path
) -> None:
    ways = {"few_shot": WAYS["few_shot"], "zero_shot": ZeroShot()}
    found, jobs = confirmed(study, tmp_path, guards, measure=yardstick(EXACT), ways=ways)
    asked = [job.trial.id for job in jobs if job.evaluation == View("confirm", 1)]
    assert asked == ["baseline/few_shot", "baseline/zero_shot"], "before, on other rows"
    looked = [job for job in jobs if job.evaluation.split == "test"]
    best, winner = found.confirmation.baselines[0].name, found.confirmation.trial
    assert winner != "0"
    trained = [f"{trial}/seed{seed}" for trial in (winner, "0") for seed in (1, 2)]
    assert sorted(job.trial.id for job in looked) == sorted([*trained, f"baseline/{best}"])
    assert all(job.start == job.stop for job in looked)
    assert {one.trial for one in found.confirmation.finalists if one.test} == {winner, "0"}
    assert [one.name for one in found.confirmation.baselines if one.test] == [best]


def test_a_second_start_does_nothing_and_counts_no_look(study: Study, guards: Guards, tmp_path: Path) -> None:
    first, _ = confirmed(study, tmp_path, guards)
    again, jobs = confirmed(study, tmp_path, guards)
    assert jobs == []
    assert told(again.confirmation) == told(first.confirmation)
    assert first.confirmation.opened == 1


def test_another_winner_opens_the_test_split_again(study: Study, guards: Guards, tmp_path: Path) -> None:
    first, _ = confirmed(study, tmp_path, guards)
    winner, kept = first.confirmation.trial, tmp_path / "confirm.json"
    kept.unlink()
    engine = Watched(synthetic(tmp_path), bad={f"{winner}/seed1": "failed"})
    other, jobs = confirmed(study, tmp_path, guards, engine=engine)
    assert other.confirmation.trial not in (winner, "0")
    assert other.confirmation.opened == 2
    assert {job.trial.id.partition("/")[0] for job in jobs if job.evaluation.split == "test"} == {
        other.confirmation.trial,
        "0",
    }
    again, _ = confirmed(study, tmp_path, guards)
    assert (again.confirmation.trial, again.confirmation.opened) == (winner, 2)


def test_what_other_studies_opened_counts_whatever_becomes_of_their_folders(
    guards: Guards, tmp_path: Path
) -> None:
    storage = InMemoryStorage()
    one, other, elsewhere = (
        finished(synthetic(tmp_path / name), storage=storage, name=name) for name in ("one", "other", "third")
    )
    first, _ = confirmed(one, tmp_path / "one", guards)
    assert (first.confirmation.opened, first.confirmation.opened_by) == (1, ())
    second, _ = confirmed(other, tmp_path / "other", guards)
    assert (second.confirmation.opened, second.confirmation.opened_by) == (2, ("one",))
    turned = {**DATA.examples, "test": DATA.examples["test"][::-1]}
    new_rows = replace(DATA, examples=turned, fingerprint="other rows")
    third, _ = confirmed(elsewhere, tmp_path / "third", guards, measure=yardstick(of=new_rows))
    assert (third.confirmation.opened, third.confirmation.opened_by) == (1, ())
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "other")
    again, _ = confirmed(other, tmp_path / "other", guards)
    assert again.confirmation.trial == second.confirmation.trial
    assert (again.confirmation.opened, again.confirmation.opened_by) == (2, ("one",))


@pytest.mark.parametrize("reports", [0, 1, 3, 6, 8, 12])
def test_an_interrupted_confirmation_ends_as_if_nothing_had_been(
    reports: int, study: Study, guards: Guards, plain: tuple[Confirmed, list[Job]], tmp_path: Path
) -> None:
    cut = Watched(synthetic(tmp_path), reports=reports)
    due = finals(study, yardstick(), cut, tmp_path, top_k=2)
    again = [*trainings(plain[1])]
    assert due.untrained(again) == 6
    with pytest.raises(KeyboardInterrupt):
        confirmed(study, tmp_path, guards, engine=cut)
    # The simpler ways are asked with no training.
    ended = [job for job in cut.jobs[:reports] if job.start < job.stop]
    assert due.untrained(again) == 6 - len(ended)
    found, jobs = confirmed(study, tmp_path, guards)
    assert due.untrained(again) == 0
    assert told(found.confirmation) == told(plain[0].confirmation)
    assert [job.id for job in cut.jobs[:reports] + jobs] == [job.id for job in plain[1]]


def test_a_finalist_that_diverges_with_a_fresh_seed_is_left_out_and_told(
    study: Study,
    guards: Guards,
    plain: tuple[Confirmed, list[Job]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    winner = plain[0].confirmation.trial
    engine = Watched(synthetic(tmp_path), bad={f"{winner}/seed2": "diverged"})
    found, _ = confirmed(study, tmp_path, guards, engine=engine)
    finalists = [one.trial for one in plain[0].confirmation.finalists]
    assert [one.trial for one in found.confirmation.finalists] == [
        trial for trial in finalists if trial != winner
    ]
    assert caplog.messages == [f"Trial {winner} is no finalist: diverged with a fresh seed: on purpose"]


def test_defaults_that_diverge_with_a_fresh_seed_are_not_compared_with(
    study: Study, guards: Guards, tmp_path: Path
) -> None:
    found, _ = confirmed(
        study, tmp_path, guards, engine=Watched(synthetic(tmp_path), bad={"0/seed1": "diverged"})
    )
    assert found.confirmation.defaults is None
    assert found.confirmation.against("defaults") is None
    assert found.confirmation.against("untrained")


def test_no_finalist_that_comes_to_its_end_is_an_error_with_the_reason(
    study: Study, guards: Guards, tmp_path: Path
) -> None:
    names = [f"{number}/seed1" for number in range(6)]
    engine = Watched(synthetic(tmp_path), bad=dict.fromkeys(names, "infeasible"))
    with pytest.raises(TrainingError, match=r"None of the finalists.*\n  infeasible: on purpose"):
        confirmed(study, tmp_path, guards, engine=engine)


@pytest.mark.parametrize("job", ["test/{}/seed2", "general/{}/seed1", "general/base"])
def test_a_finalist_that_can_not_be_scored_is_an_error_and_tried_again(
    job: str, study: Study, guards: Guards, plain: tuple[Confirmed, list[Job]], tmp_path: Path
) -> None:
    name = job.format(plain[0].confirmation.trial)
    with pytest.raises(TrainingError, match=f"{name} could not be scored; failed: on purpose"):
        confirmed(study, tmp_path, guards, engine=Watched(synthetic(tmp_path), bad={name: "failed"}))
    found, jobs = confirmed(study, tmp_path, guards)
    assert told(found.confirmation) == told(plain[0].confirmation)
    assert name in [job.id for job in jobs]
    assert trainings(jobs) == {}


def test_an_engine_that_does_not_answer_ends_with_what_to_do(
    study: Study, guards: Guards, tmp_path: Path
) -> None:
    measure, engine = yardstick(EXACT), Watched(synthetic(tmp_path), answers=False)
    with pytest.raises(ConfigError, match=r"engine gave none for confirm/.*objective=loss"):
        confirmed(study, tmp_path, guards, measure=measure, engine=engine)
