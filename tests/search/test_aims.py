"""A search with several aims: what Optuna is told, what a restart finds, what each sampler makes of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from sweep.analysis.front import front_of, non_dominated
from sweep.engines.synthetic import Synthetic
from sweep.errors import StudyError
from sweep.evaluation.pareto import Aim
from sweep.search.draw import drawn
from sweep.search.scheduler import Full
from sweep.search.space import Space
from sweep.search.stored import read_study
from sweep.search.study import Study
from sweep.types import Aimed, Asking, Capacity, Job, Prompt, Report, Source, View
from tests.search.dying import survived
from tests.search.test_guarded import GUARDS, SHORT, whole
from tests.studies import PLAN, handed_out, open_study, run_study

# The closed form loses 0.05 nats with each doubling of the rank.
RANKS = Space.from_mapping(
    {
        "learning_rate": {"low": 3e-5, "high": 3e-3, "log": True},
        "lora_rank": {"choices": [2, 4, 8, 16, 32, 64]},
        "weight_decay": {"low": 0.0, "high": 3.0},
    }
)
# Trials diverge above 0.02, and recite above 0.01 or after two passes.
ROUGH = Space.from_mapping(
    {
        "learning_rate": {"low": 1e-4, "high": 0.06, "log": True},
        "epochs": {"low": 0.5, "high": 3.0},
        "lora_rank": {"choices": [2, 4, 8, 16, 32, 64]},
    }
)


class Weighed:
    """Aims in closed form: a gain that falls with the loss, and the rank, of which less is better."""

    aims = (
        Aim("gain", "points", higher_is_better=True, metric=None),
        Aim("rank", "dimensions", higher_is_better=False, metric="rank"),
    )

    def __init__(self) -> None:
        self.measured: list[str] = []

    def asking(self, view: View) -> Asking:
        return Asking((Prompt(f"{view.split}-{view.rows}", (("user", "What?"),)),), 8)

    def aimed(self, view: View, report: Report) -> tuple[Aimed, ...]:
        self.measured.append(report.job)
        assert report.validation_loss is not None
        values = (10 - report.validation_loss, report.metrics["rank"])
        return tuple(
            Aimed(aim.name, value, aim.unit, aim.higher_is_better)
            for aim, value in zip(self.aims, values, strict=True)
        )


class Ranked(Synthetic):
    """Whose reports say which rank was trained."""

    def run(self, source: Source) -> Iterator[Any]:
        ranks: dict[str, float] = {}

        class Seen:
            def next(self, capacity: Capacity) -> Any:
                job = source.next(capacity)
                if isinstance(job, Job):
                    ranks[job.id] = float(job.trial.recipe.lora_rank)
                return job

            def cancelled(self) -> frozenset[str]:
                return source.cancelled()

        for event in super().run(Seen()):
            reached = isinstance(event, Report) and event.state == "reached"
            yield replace(event, metrics={"rank": ranks[event.job]}) if reached else event


@pytest.fixture
def ranked(synthetic: Synthetic) -> Ranked:
    return Ranked(inputs=synthetic._inputs, noise=0.0)


def several(storage: Any = None, **plan: Any) -> Study:
    given = {"space": RANKS, "scheduler": Full(), "aimed_by": Weighed(), "trials": 16, **plan}
    return open_study(storage, **given)


def rough(storage: Any = None, **plan: Any) -> Study:
    return several(storage, **{"space": ROUGH, "guards": GUARDS, "defaults": SHORT, **plan})


def made(cls: type[BaseSampler], **arguments: Any) -> Callable[[int], BaseSampler]:
    return lambda seed: cls(seed=seed, **arguments)


SAMPLERS = {
    "tpe": made(TPESampler, n_startup_trials=6, group=True, multivariate=True),
    "gp": made(GPSampler, n_startup_trials=6),
    "nsga2": made(NSGAIISampler, population_size=6),
    "nsga3": made(NSGAIIISampler, population_size=6),
}


def test_optuna_is_told_each_aim_and_finds_the_same_front(ranked: Ranked) -> None:
    study = run_study(several(trials=40), ranked)
    assert [direction.name for direction in study._optuna.directions] == ["MAXIMIZE", "MINIMIZE"]
    for standing, frozen in zip(study.standings, study._optuna.get_trials(), strict=True):
        recipe = standing.trial.recipe
        assert [one.value for one in standing.aims] == [10 - standing.loss, recipe.lora_rank] == frozen.values
        assert standing.reports[-1].metrics["aim/gain"] == frozen.values[0]
        assert standing.reports[-1].metrics["aim/rank"] == frozen.values[1]
    front = front_of(study.standings)
    assert {one.trial.number for one in front} == {trial.number for trial in study._optuna.best_trials}
    assert len(front) > 2
    assert study.best is front[0]


def test_each_trial_answers_the_rows_it_is_judged_on_and_others_answer_none() -> None:
    job = handed_out(several(evaluation=View("validation", 24)))
    assert job.evaluation == View("validation", 24)
    assert job.asked
    assert job.asked.prompts[0].row == "validation-24"
    plain = handed_out(open_study(scheduler=Full()))
    assert plain.asked is None


def test_a_reader_sees_the_aims_and_the_same_leader(ranked: Ranked) -> None:
    storage = InMemoryStorage()
    study = run_study(rough(storage), ranked)
    stored = read_study(storage, PLAN.name)
    assert repr(stored.standings) == repr(tuple(study.standings))
    assert stored.best
    assert stored.best.aims[1] == Aimed("rank", stored.best.trial.recipe.lora_rank, "dimensions", False)
    assert stored.best.trial == study.best.trial  # type: ignore[union-attr]


@pytest.mark.parametrize("first_writes", range(1, 120, 9))
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_driver_killed_at_any_write_finds_the_same(ranked: Ranked, sampler: str, first_writes: int) -> None:
    """Trials that diverge and that fail their guards among them, and generations."""
    plan = {"sampler": SAMPLERS[sampler], "trials": 16, "seed": 2}
    undisturbed = run_study(rough(**plan), ranked)
    assert {"complete", "diverged"} == {one.state for one in undisturbed.standings}
    assert {True, False} == {bool(one.broken) for one in undisturbed.standings if one.state == "complete"}
    study, disk = survived(lambda disk: run_study(rough(disk, **plan), ranked), first=first_writes, then=13)
    assert whole(study) == whole(undisturbed)
    assert notes(study) == notes(undisturbed)
    before = [repr(trial) for trial in study._optuna.get_trials()]
    weighed = Weighed()
    again = rough(disk, **plan, aimed_by=weighed)
    assert whole(again) == whole(undisturbed)
    assert [repr(trial) for trial in again._optuna.get_trials()] == before
    assert not weighed.measured, "what is told again was kept"


def notes(study: Study) -> list[dict[str, Any]]:
    """What samplers and guards left on each trial, and the generations' parents."""
    parents = study._trials._storage.get_study_system_attrs(study._optuna._study_id)
    return [*(trial.system_attrs for trial in study._optuna.get_trials()), parents]


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_goes_on_where_trials_diverge_or_may_not_win(ranked: Ranked, name: str) -> None:
    study = run_study(rough(sampler=SAMPLERS[name], trials=40, seed=1), ranked)
    assert {one.state for one in study.standings} == {"complete", "diverged"}
    unfit = [one.state == "diverged" or bool(one.broken) for one in study.standings]
    # Of random draws 28% lie above a rate of 0.01 and 40% above two epochs.
    assert np.mean(unfit[20:]) < 0.8 * (1 - 0.72 * 0.6)
    assert study.best
    assert not study.best.broken


def gained(study: Study) -> float:
    """The area that the front covers from the loss of 10 and rank 64 on, ranks in doublings."""
    points = np.array([[one.aims[0].value, 6 - math.log2(one.aims[1].value)] for one in study.standings])
    front = points[non_dominated(points)]
    ends = sorted(front.tolist(), key=lambda point: -point[0])
    return sum(
        (gain - 7.0) * (rank - below)
        for (gain, rank), below in zip(ends, [0.0, *(rank for _, rank in ends)], strict=False)
    )


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        *((name, 3) for name in SAMPLERS if name != "gp"),
        ("gp", 1),
        pytest.param("gp", 3, marks=pytest.mark.slow),
    ],
)
def test_each_sampler_finds_a_better_front_than_random_draws(ranked: Ranked, name: str, seeds: int) -> None:
    def mean(sampler: Callable[[int], BaseSampler] | None) -> float:
        given = {"sampler": sampler} if sampler else {}
        return float(
            np.mean([gained(run_study(several(trials=36, seed=s, **given), ranked)) for s in range(seeds)])
        )

    assert mean(SAMPLERS[name]) > mean(None)


def test_generations_are_those_of_a_study_that_optuna_drives_itself(ranked: Ranked) -> None:
    """Optuna stores a trial before it draws it; here it is stored afterwards, with what the sampler noted."""
    study = run_study(several(sampler=SAMPLERS["nsga2"], trials=30), ranked)
    reference = optuna.create_study(directions=["maximize", "minimize"])
    distributions = RANKS.distributions()
    key = NSGAIISampler._get_generation_key()
    for standing, frozen in zip(study.standings, study._optuna.get_trials(), strict=True):
        number = frozen.number
        values = [one.value for one in standing.aims]
        if number == 0:
            first = create_trial(
                values=values, params=frozen.params, distributions=distributions, system_attrs={key: 0}
            )
            reference.add_trial(first)
            continue
        seed = int.from_bytes(hashlib.sha256(f"{PLAN.seed}/{number}".encode()).digest()[:4], "big")
        reference.sampler = SAMPLERS["nsga2"](seed)
        theirs = reference.ask(distributions)
        assert theirs.params == frozen.params
        reference.tell(theirs, values)
        assert reference.trials[number].system_attrs[key] == frozen.system_attrs[key]
    generations = [trial.system_attrs[key] for trial in study._optuna.get_trials()]
    assert generations == sorted(number // 6 for number in range(30))


def test_a_genetic_search_learns_with_one_aim_too(ranked: Ranked) -> None:
    """Once told to be impossible: without its generation each trial was of the first, drawn at random."""
    study = run_study(
        open_study(scheduler=Full(), space=RANKS, sampler=made(NSGAIISampler, population_size=8), trials=64),
        ranked,
    )
    losses = [one.loss for one in study.standings]
    assert np.mean(losses[-16:]) < np.mean(losses[1:17]) - 0.2


class Untold(Weighed):
    def __init__(self, trial: str) -> None:
        super().__init__()
        self.trial = trial

    def aimed(self, view: View, report: Report) -> tuple[Aimed, ...]:
        found = super().aimed(view, report)
        return (found[0], found[1]._replace(value=math.nan)) if report.trial == self.trial else found


def test_a_trial_of_which_an_aim_says_nothing_fails_and_names_the_aim(ranked: Ranked) -> None:
    study = run_study(several(trials=4, aimed_by=Untold("2")), ranked)
    assert [one.state for one in study.standings] == ["complete", "complete", "failed", "complete"]
    assert "objective.aims: rank gave no number" in (study.standing("2").reason or "")
    assert [trial.state for trial in study._optuna.get_trials()][2] is TrialState.FAIL
    with pytest.raises(StudyError, match=r"Trial 0, .* failed.*objective\.aims: rank gave no number"):
        run_study(several(trials=4, aimed_by=Untold("0")), ranked)


def test_a_study_without_trials_keeps_to_the_aims_it_was_begun_with() -> None:
    storage = InMemoryStorage()
    several(storage)
    with pytest.raises(StudyError, match=r"begun to maximize, minimize, .* now it is to minimize\. Restore"):
        open_study(storage, scheduler=Full(), space=RANKS)


def test_an_interrupted_trial_goes_on_and_is_no_hindrance(ranked: Ranked) -> None:
    """Samplers are shown it as pruned, without any value."""
    storage = InMemoryStorage()
    study = run_study(several(storage, trials=8, sampler=SAMPLERS["tpe"]), ranked)
    study = several(storage, trials=12, sampler=SAMPLERS["tpe"])
    job = handed_out(study)
    again = several(storage, trials=12, sampler=SAMPLERS["tpe"])
    waiting = again.standing(job.trial.id)
    assert waiting.state == "paused"
    assert drawn(again._optuna, again._trials._storage, SAMPLERS["tpe"], again.plan, 9)
    done = run_study(several(storage, trials=12, sampler=SAMPLERS["tpe"]), ranked)
    assert {one.state for one in done.standings} == {"complete"}
