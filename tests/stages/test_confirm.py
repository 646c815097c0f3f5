"""Confirmation: a choice on rows of its own, and what to do with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep.errors import TrainingError
from sweep.evaluation.guards import Guards
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.stages.confirm import Confirmed
from sweep.types import Job
from tests.recipes import DEFAULTS
from tests.stages.finished import (
    EXACT,
    WAYS,
    Watched,
    confirmed,
    data,
    finished,
    synthetic,
    trainings,
    yardstick,
)


@pytest.mark.parametrize(("seed", "agree"), [(0, False), (1, True), (2, False)])
def test_the_winner_is_best_on_confirm_rows_whoever_led_the_search(
    seed: int, agree: bool, guards: Guards, tmp_path: Path
) -> None:
    """Noise far above what tells the trials apart: search and confirmation seldom agree."""
    engine = synthetic(tmp_path, noise=0.8)
    study = finished(engine, seed=seed)
    found, jobs = confirmed(study, tmp_path, guards, engine=Watched(engine), top_k=4)
    means = {
        trial: np.mean(
            [engine.expected(job.trial.recipe, job.stop, job.trial.seed) for job in seeds.values()]
        )
        for trial, seeds in trainings(jobs).items()
    }
    confirmation = found.confirmation
    assert confirmation.trial == min(means, key=means.__getitem__)
    assert confirmation.winner.confirm.value == pytest.approx(means[confirmation.trial])
    assert confirmation.leader == min(study.standings, key=lambda standing: standing.loss).trial.id
    others = [trial for trial in means if trial != "0"]
    assert [one.trial for one in confirmation.finalists] == [*sorted(others, key=means.__getitem__), "0"]
    assert (confirmation.trial == confirmation.leader) is agree


def test_the_difference_is_the_mean_over_seeds_on_test_rows(
    study: Study, plain: tuple[Confirmed, list[Job]], tmp_path: Path
) -> None:
    found, jobs = plain
    engine, ran, winner = synthetic(tmp_path), trainings(jobs), found.confirmation.trial
    means = [
        np.mean([engine.expected(job.trial.recipe, job.stop, job.trial.seed) for job in ran[trial].values()])
        for trial in (winner, "0")
    ]
    difference = found.confirmation.against("defaults")
    assert difference
    assert difference.value == pytest.approx(means[0] - means[1])
    assert difference.low < difference.value < difference.high < 0
    assert difference.rows == 100
    assert found.confirmation.defaults
    assert found.confirmation.defaults.test
    assert found.confirmation.defaults.test.value == pytest.approx(means[1])


def test_a_slice_that_the_baseline_serves_better_is_named(
    guards: Guards, tmp_path: Path, study: Study
) -> None:
    """The canned reply is right for the formal fifth only, and best of all there."""
    ways = {"canned": WAYS["canned"]}
    found, _ = confirmed(study, tmp_path, guards, measure=yardstick(EXACT), ways=ways)
    slices = {one.value: one for one in found.confirmation.slices}
    assert {value: one.worse for value, one in slices.items()} == {"formal": True, "plain": False}
    assert slices["plain"].difference.value > 0 > slices["formal"].difference.value


@pytest.fixture(scope="module")
def without_defaults(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Whose defaults diverged in the search, and are better than anything else in it."""
    engine = Watched(synthetic(tmp_path_factory.mktemp("diverged")), bad={"0": "diverged"})
    space = Space.from_mapping({"learning_rate": {"choices": [3e-5, 4e-5, 5e-5, 6e-5, 8e-5, 3e-4]}})
    study = finished(engine, seed=6, defaults=DEFAULTS, space=space)
    assert study.standings[0].state == "diverged"
    assert all(standing.trial.recipe != DEFAULTS for standing in study.standings[1:])
    return study


def test_defaults_that_diverged_in_the_search_are_trained_and_compared_with_but_not_handed_over(
    without_defaults: Study, guards: Guards, tmp_path: Path
) -> None:
    found, jobs = confirmed(without_defaults, tmp_path, guards)
    assert trainings(jobs)["0"].keys() == {"seed1", "seed2"}
    confirmation = found.confirmation
    assert confirmation.defaults
    assert confirmation.defaults.loss is None
    assert confirmation.defaults.confirm.value < confirmation.winner.confirm.value
    assert confirmation.trial != "0"
    difference = confirmation.against("defaults")
    assert difference
    assert difference.low > 0
    assert confirmation.judgement.outcome == "no_evidence"


def test_nothing_is_handed_over_where_only_such_defaults_are_left(
    without_defaults: Study, guards: Guards, tmp_path: Path
) -> None:
    names = [f"{number}/seed1" for number in range(1, 6)]
    engine = Watched(synthetic(tmp_path), bad=dict.fromkeys(names, "diverged"))
    with pytest.raises(TrainingError, match="No trial can be confirmed: one that came to its end"):
        confirmed(without_defaults, tmp_path, guards, engine=engine)


@pytest.mark.parametrize(("epochs", "able"), [([1.0, 3.0], True), ([3.0, 4.0], False)])
def test_what_learnt_its_rows_by_heart_wins_only_where_nothing_else_may(
    epochs: list[float], able: bool, guards: Guards, tmp_path: Path
) -> None:
    """The closed form recites after two passes, and its loss is lower for them."""
    engine = synthetic(tmp_path)
    study = finished(
        engine,
        defaults=replace(DEFAULTS, epochs=3.0),
        space=Space.from_mapping({"epochs": {"choices": epochs}}),
        guards=guards,
    )
    reciting = {standing.trial.id for standing in study.standings if standing.broken}
    assert "0" in reciting
    confirmation = confirmed(study, tmp_path, guards, engine=Watched(engine))[0].confirmation
    assert (confirmation.trial not in reciting) is able
    assert {one.trial for one in confirmation.finalists} >= {"0"}
    assert confirmation.judgement.outcome == "no_evidence"
    verbatim = next(verdict for verdict in confirmation.verdicts if verdict.check == "verbatim")
    assert verbatim.passed is able
    assert min(confirmation.finalists, key=lambda one: one.confirm.value).trial in reciting


def test_clearly_better_than_base_and_defaults_is_shipped(plain: tuple[Confirmed, list[Job]]) -> None:
    judgement = plain[0].confirmation.judgement
    assert judgement.outcome == "ship"
    assert judgement.verdict.passed
    assert [one.rival for one in judgement.comparisons] == ["untrained", "defaults"]
    assert {verdict.check for verdict in plain[0].confirmation.verdicts} == {"forgetting", "learning_curve"}


def test_replies_are_compared_with_the_best_baseline_and_held_to_their_guards(
    study: Study, guards: Guards, tmp_path: Path
) -> None:
    found, _ = confirmed(study, tmp_path, guards, measure=yardstick(EXACT))
    confirmation = found.confirmation
    assert confirmation.better == "higher"
    assert confirmation.judgement.outcome == "ship"
    difference = confirmation.against("canned")
    assert difference
    assert difference.low > 0
    assert [verdict.check for verdict in confirmation.verdicts] == [
        "overlap",
        "forgetting",
        "proxy_agrees",
        "learning_curve",
    ]


def test_few_groups_are_no_evidence(study: Study, guards: Guards, tmp_path: Path) -> None:
    of = data()
    few = replace(of, groups={row: number % 9 for row, number in of.groups.items()})
    found, _ = confirmed(study, tmp_path, guards, measure=yardstick(of=few))
    assert found.confirmation.judgement.outcome == "no_evidence"
    assert "9 independent groups of rows are too few" in found.confirmation.judgement.verdict.message


def alike(folder: Path, seed: int) -> tuple[Study, Watched]:
    """A study whose trials are all as good as its defaults."""
    engine = synthetic(folder, noise=0.001)
    space = Space.from_mapping({"weight_decay": {"low": 0.0, "high": 0.05}})
    return finished(engine, seed=seed, defaults=DEFAULTS, space=space), Watched(engine)


def test_a_winner_as_good_as_the_defaults_is_no_evidence(guards: Guards, tmp_path: Path) -> None:
    study, engine = alike(tmp_path, 1)
    found, _ = confirmed(study, tmp_path, guards, engine=engine)
    assert found.confirmation.trial != "0"
    assert found.confirmation.judgement.outcome == "no_evidence"
    assert "its gain over defaults could be chance" in found.confirmation.judgement.verdict.message


def test_defaults_that_win_have_only_the_baseline_to_beat(guards: Guards, tmp_path: Path) -> None:
    study, engine = alike(tmp_path, 0)
    found, jobs = confirmed(study, tmp_path, guards, engine=engine)
    confirmation = found.confirmation
    assert (confirmation.trial, confirmation.judgement.outcome) == ("0", "ship")
    assert confirmation.defaults == confirmation.winner
    assert [one.rival for one in confirmation.judgement.comparisons] == ["untrained"]
    assert len([job for job in jobs if job.evaluation.split == "test"]) == 3, "two seeds, one baseline"


def test_a_baseline_that_is_right_everywhere_is_used(study: Study, guards: Guards, tmp_path: Path) -> None:
    of = data()
    alike = {
        split: tuple(
            replace(row, messages=(row.messages[0], replace(row.messages[1], content="We will call you.")))
            for row in rows
        )
        for split, rows in of.examples.items()
    }
    of = replace(of, examples=alike)
    engine = Watched(synthetic(tmp_path, of=of))
    found, jobs = confirmed(study, tmp_path, guards, measure=yardstick(EXACT, of), engine=engine)
    assert found.confirmation.judgement.outcome == "use_baseline"
    assert found.confirmation.baseline
    assert found.confirmation.baseline.name == "canned"
    assert found.confirmation.baseline.test
    assert found.confirmation.baseline.test.value == 1.0
    assert not [job for job in jobs if job.evaluation.split == "test" and "baseline" in job.id]


def test_without_a_baseline_nothing_is_known(study: Study, guards: Guards, tmp_path: Path) -> None:
    engine = Watched(synthetic(tmp_path), bad={"baseline/untrained": "failed"})
    found, _ = confirmed(study, tmp_path, guards, engine=engine)
    assert found.confirmation.judgement.outcome == "no_evidence"
    assert found.confirmation.baselines == ()
    assert found.confirmation.slices == ()
