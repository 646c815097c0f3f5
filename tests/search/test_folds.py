"""A study by cross-validation: a rung is a fold, a loss the folds' mean, and Wilcoxon's test ends trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.pruners import WilcoxonPruner
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from scipy.stats import wilcoxon

from sweep.analysis.outcomes import losses_of, outcomes
from sweep.analysis.surrogate import trials_table
from sweep.engines.synthetic import Synthetic
from sweep.errors import ConfigError, StudyError
from sweep.evaluation.guards import guard_probe
from sweep.search.route import check_route
from sweep.search.scheduler import Asha, Full, Pruned, Scheduler, TopK, Wilcoxon
from sweep.search.space import Space
from sweep.search.stored import read_study
from sweep.search.study import Study
from sweep.types import Probe, Progress, Report, Standing, View
from tests.search.dying import survived
from tests.search.test_guarded import GUARDS, whole
from tests.search.test_study import outline
from tests.studies import PLAN, handed_out, open_study, reached

Run = Callable[..., Study]

FOLDS = 5
# Four fifths of 288 rows, in batches of 32 at most.
HORIZON = 224
# The best of the closed form, and one that is worse by far more than its noise.
GOOD, BAD = 3e-4, 3e-3


class Heard:
    """Every event as observers get it."""

    def __init__(self) -> None:
        self.events: list[Progress | Report] = []

    def log(self, event: Progress | Report) -> None:
        self.events.append(event)

    def reports(self, trial: str) -> list[Report]:
        return [e for e in self.events if isinstance(e, Report) and e.trial == trial]


def wilcoxon_at(threshold: float) -> Wilcoxon:
    return Wilcoxon(p_threshold=threshold, n_startup_steps=2)


def folded(**plan: Any) -> Study:
    given = {"folds": FOLDS, "scheduler": Full(), "trials": 6, **plan}
    return open_study(given.pop("storage", None), **given)


def answer_trial(study: Study, losses: list[float]) -> Standing:
    """The next trial, with these losses by fold, until it ends."""
    for value in losses:
        job = handed_out(study)
        study.record(reached(job, value))
        if study.standing(job.trial.id).state not in ("running", "paused"):
            break
    return study.standing(job.trial.id)


def test_each_fold_is_trained_from_the_beginning_on_all_others() -> None:
    study = folded(evaluation=View("validation", 20))
    jobs = []
    for value in range(FOLDS):
        jobs.append(handed_out(study))
        study.record(reached(jobs[-1], float(value)))
    assert {job.trial.id for job in jobs} == {"0"}
    for fold, job in enumerate(jobs):
        assert (job.start, job.stop, job.horizon, job.checkpoint) == (0, HORIZON, HORIZON, None)
        assert (job.train, job.evaluation) == (View("train", None, fold), View("validation", 20, fold))
        assert job.before == fold * HORIZON
    assert study.ladder == tuple(HORIZON * fold for fold in range(1, FOLDS + 1))
    assert len({job.id for job in jobs}) == FOLDS


def test_a_trials_loss_is_the_mean_of_its_folds(run: Run, synthetic: Synthetic) -> None:
    heard = Heard()
    study = run(folded(), heard)
    assert {s.state for s in study.standings} == {"complete"}
    for standing in study.standings:
        recipe, seed = standing.trial.recipe, standing.trial.seed
        base = synthetic.expected(recipe, HORIZON, seed)
        by_hand = [base + synthetic.on_fold(fold, recipe, seed) for fold in range(FOLDS)]
        assert list(standing.values.values()) == pytest.approx(by_hand, abs=1e-12)
        assert standing.loss == pytest.approx(sum(by_hand) / FOLDS)
        told = study._trials.frozen(int(standing.trial.id))
        assert told.value == standing.loss
        assert told.intermediate_values == dict(enumerate(standing.values.values(), start=1))
        # Rows of one length, so the loss is a mean of rows; no row is in two folds.
        reports = heard.reports(standing.trial.id)
        rows = [np.array([row.nats / row.tokens for row in report.rows]) for report in reports]
        error = math.sqrt(sum(fold.var(ddof=1) / len(fold) for fold in rows)) / FOLDS
        last = standing.reports[-1]
        assert last.metrics["validation_loss_error"] == pytest.approx(error)
        assert last.metrics["validation_rows"] == sum(map(len, rows))
        assert len({row.row for report in reports for row in report.rows}) == sum(map(len, rows))
    assert study.best is not None
    assert study.best.loss == min(s.loss for s in study.standings)


def test_a_folds_cost_is_counted_once(run: Run) -> None:
    heard = Heard()
    study = run(folded(), heard)
    for standing in study.standings:
        given = heard.reports(standing.trial.id)
        assert sum(r.seconds for r in standing.reports) == pytest.approx(sum(r.seconds for r in given))
        assert sum(r.tokens for r in standing.reports) == sum(r.tokens for r in given)


def test_observers_hear_of_examples_in_all_folds(run: Run) -> None:
    heard = Heard()
    run(folded(trials=2), heard)
    for trial in ("0", "1"):
        steps = [e.examples_seen for e in heard.events if e.trial == trial and isinstance(e, Progress)]
        assert steps == sorted(set(steps))
        assert steps[-1] == FOLDS * HORIZON
        ends = [report.examples_seen for report in heard.reports(trial)]
        assert ends == [HORIZON * fold for fold in range(1, FOLDS + 1)]


def test_readers_see_what_the_driver_knows(run: Run) -> None:
    storage = InMemoryStorage()
    study = run(folded(storage=storage, scheduler=wilcoxon_at(0.15)))
    stored = read_study(storage, PLAN.name)
    assert stored.standings == tuple(study.standings)
    assert (stored.folds, stored.ladder, stored.judged_on) == (FOLDS, study.ladder, (32,) * FOLDS)


# Wilcoxon's test


@pytest.mark.parametrize(("threshold", "after"), [(0.15, 3), (0.1, 4)])
def test_a_clearly_worse_trial_ends_before_its_last_fold_and_an_equal_one_does_not(
    threshold: float, after: int
) -> None:
    study = folded(scheduler=wilcoxon_at(threshold), trials=4)
    assert wilcoxon_at(threshold).soonest == after < FOLDS
    first = [2.0, 2.3, 1.9, 2.1, 2.2]
    assert answer_trial(study, first).state == "complete"
    worse = answer_trial(study, [value + 0.1 for value in first])
    assert (worse.state, len(worse.values)) == ("pruned", after)
    assert answer_trial(study, first).state == "complete"
    mixed = [value + shift for value, shift in zip(first, (0.02, -0.03, 0.04, -0.05, 0.01), strict=True)]
    assert answer_trial(study, mixed).state == "complete"


def test_hard_folds_do_not_make_a_trial_look_bad() -> None:
    """One that compares with the best by level alone would stop the better trial at a hard fold."""
    study = folded(scheduler=wilcoxon_at(0.15), trials=2)
    answer_trial(study, [1.0, 1.0, 1.0, 5.0, 5.0])
    better = answer_trial(study, [0.9, 0.9, 0.9, 4.9, 4.9])
    assert better.state == "complete"
    assert study.best == better


@pytest.mark.parametrize("threshold", [0.07, 0.15, 0.3])
def test_trials_end_where_scipy_says_so_of_their_stored_losses(run: Run, threshold: float) -> None:
    storage = InMemoryStorage()
    run(folded(storage=storage, scheduler=wilcoxon_at(threshold), trials=30))
    best: Standing | None = None
    ends: list[int] = []
    for standing in read_study(storage, PLAN.name).standings:
        losses = list(standing.values.values())
        stops = FOLDS
        if best is not None:
            theirs = list(best.values.values())
            for folds in range(2, FOLDS):
                pairs = np.subtract(losses[:folds], theirs[:folds])
                p = wilcoxon(pairs, alternative="greater", zero_method="zsplit").pvalue
                if p < threshold and np.mean(theirs) < np.mean(losses[:folds]):
                    stops = folds
                    break
                if len(losses) == folds:
                    break
        assert len(losses) == stops
        assert standing.state == ("complete" if stops == FOLDS else "pruned")
        ends.append(stops)
        if stops == FOLDS and (best is None or standing.loss < best.loss):
            best = standing
    assert {FOLDS, wilcoxon_at(threshold).soonest} <= set(ends), "else nothing is shown"


def test_trial_0_is_never_stopped() -> None:
    scheduler = Wilcoxon(p_threshold=1.0, n_startup_steps=0)
    study = folded(scheduler=scheduler, trials=2)
    frozen = answer_trial(study, [2.0, 2.0, 2.0, 2.0, 2.0])
    assert scheduler.keeps(study._optuna, study._trials.frozen(int(frozen.trial.id)))


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.25, 0.15, 0.125, 0.1, 0.0625, 0.05, 0.01])
def test_the_soonest_stop_is_that_of_scipys_least_p(threshold: float) -> None:
    least = {n: wilcoxon(np.arange(1.0, n + 1), alternative="greater").pvalue for n in range(2, 12)}
    soonest = min(n for n, p in least.items() if p < threshold)
    assert Wilcoxon(p_threshold=threshold, n_startup_steps=0).soonest == soonest
    assert Wilcoxon(p_threshold=threshold, n_startup_steps=12).soonest == 12


@pytest.mark.parametrize(
    ("scheduler", "folds", "said"),
    [
        (Asha(eta=3, rungs=3), 5, "Write scheduler=wilcoxon"),
        (TopK(k=3, first_share=0.3), 5, "Write scheduler=wilcoxon"),
        (Pruned(eta=3, rungs=3, pruner=None), 5, "Write scheduler=wilcoxon"),  # type: ignore[arg-type]
        (wilcoxon_at(0.15), None, "Write validation=kfold"),
        (wilcoxon_at(0.05), 5, r"Write validation\.folds=6"),
        (wilcoxon_at(0.15), 3, r"Write validation\.folds=4"),
        (Wilcoxon(p_threshold=0.15, n_startup_steps=5), 5, r"Write validation\.folds=6"),
    ],
)
def test_schedulers_that_compare_something_else_are_refused(
    scheduler: Scheduler, folds: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_route(scheduler, folds)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_wilcoxons_test_does_not_compare_the_rungs_of_one_training() -> None:
    with pytest.raises(ConfigError, match=r"Pruned pairs trials by repeats.*Write validation=kfold"):
        check_route(Pruned(eta=3, rungs=3, pruner=WilcoxonPruner()), None)


@pytest.mark.parametrize(
    ("scheduler", "folds"), [(wilcoxon_at(0.15), 5), (wilcoxon_at(0.15), 4), (Full(), 2), (Full(), None)]
)
def test_schedulers_that_fit_are_taken(scheduler: Scheduler, folds: int | None) -> None:
    check_route(scheduler, folds)


# Kills


@pytest.mark.parametrize("first_writes", range(2, 150, 9))
def test_a_driver_killed_at_any_write_finds_the_same(run: Run, first_writes: int) -> None:
    """Trials that diverge, recite and are stopped among them."""
    space = Space.from_mapping({"learning_rate": {"low": 1e-4, "high": 0.06, "log": True}})
    plan = {"space": space, "trials": 8, "scheduler": wilcoxon_at(0.15), "guards": GUARDS}
    undisturbed = run(folded(**plan))
    states = {(s.state, bool(s.broken)) for s in undisturbed.standings}
    assert {("complete", False), ("pruned", False), ("diverged", False)} <= states
    study, disk = survived(lambda disk: run(folded(**plan, storage=disk)), first=first_writes)
    assert whole(study) == whole(undisturbed)
    before = [repr(trial) for trial in study._optuna.get_trials()]
    again = folded(**plan, storage=disk)
    assert whole(again) == whole(undisturbed)
    assert [repr(trial) for trial in again._optuna.get_trials()] == before


def test_a_fold_that_was_cut_short_goes_on_where_it_was(run: Run, tmp_path: Path) -> None:
    disk = InMemoryStorage()
    study = folded(storage=disk)

    class Interrupt:
        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Progress) and event.examples_seen == HORIZON + 64:
                study.interrupt()

    run(study, Interrupt())
    job = handed_out(folded(storage=disk))
    assert (job.train.fold, job.start, job.stop, job.attempt) == (1, 64, HORIZON, 1)
    assert outline(run(folded(storage=disk))) == outline(run(folded()))
    assert not list((tmp_path / "checkpoints").rglob("state.json"))


def test_a_folds_state_goes_when_its_report_is_in(run: Run) -> None:
    heard = Heard()
    run(folded(trials=2), heard)
    states = [Path(report.checkpoint or "") for trial in "01" for report in heard.reports(trial)]
    assert len(set(states)) == 2 * FOLDS
    assert not any((state / "state.json").exists() for state in states)


def test_a_fold_that_diverges_ends_its_trial() -> None:
    study = folded()
    answer_trial(study, [2.0] * FOLDS)
    job = handed_out(study)
    study.record(reached(job, 2.5))
    job = handed_out(study)
    ended = replace(reached(job, 0.0), state="diverged", error="too high", examples_seen=40)
    study.record(replace(ended, validation_loss=None))
    standing = study.standing("1")
    assert (standing.state, standing.reason, len(standing.values)) == ("diverged", "too high", 1)
    assert standing.loss == 2.5
    assert standing.reports[-1].examples_seen == HORIZON + 40
    assert study._trials.frozen(1).state is TrialState.PRUNED
    assert handed_out(study).trial.id == "2"


def test_another_number_of_folds_is_another_study(run: Run) -> None:
    disk = InMemoryStorage()
    run(folded(storage=disk, trials=1))
    for other in (4, None):
        with pytest.raises(StudyError, match="rungs"):
            folded(storage=disk, folds=other)


# Guards


def test_guards_judge_by_the_rows_of_all_folds(run: Run) -> None:
    heard = Heard()
    space = Space.from_mapping({"learning_rate": {"choices": [GOOD, 0.015]}})
    study = run(folded(guards=GUARDS, space=space, trials=4), heard)
    assert {bool(s.broken) for s in study.standings} == {True, False}
    for standing in study.standings:
        probed = [
            row._replace(row=f"{row.row}/{fold}")
            for fold, report in enumerate(heard.reports(standing.trial.id))
            for row in report.probed
        ]
        assert len([row for row in probed if row.split == "train"]) == FOLDS * 10
        assert len([row for row in probed if row.split == "validation"]) == FOLDS * 10
        assert standing.verdicts == guard_probe(probed, GUARDS)
        assert bool(standing.broken) == (standing.trial.recipe.learning_rate > 0.01)


def test_guards_probe_a_folds_own_rows() -> None:
    study = folded(guards=GUARDS)
    for fold in range(FOLDS):
        job = handed_out(study)
        assert job.probe == Probe(View("train", 10, fold), View("validation", 10, fold), 5)
        study.record(reached(job, 1.0))


def test_finalists_train_on_the_pool_as_many_passes_and_are_probed_on_confirm_rows() -> None:
    study = folded(guards=GUARDS, train_rows=300)
    standing = answer_trial(study, [2.0] * FOLDS)
    assert study.ladder[0] == round(0.8 * 300 / 32) * 32
    assert study.route.whole(standing) == (round(300 / 32) * 32,) * 2
    assert study.plan.probe == Probe(View("train", 48), View("confirm", 48), 24)


# Where lengths are searched


def test_trials_of_other_lengths_are_paired_by_fold(run: Run) -> None:
    space = Space.from_mapping({"epochs": {"choices": [0.5, 1.0, 2.0]}})
    study = run(folded(space=space, scheduler=wilcoxon_at(0.15), trials=10))
    assert len({s.trial.recipe.epochs for s in study.standings}) == 3
    for standing in study.standings:
        horizon = round(standing.trial.recipe.epochs * 0.8 * 288 / 8) * 8
        assert list(standing.values) == [horizon * n for n in range(1, len(standing.values) + 1)]
        steps = study._trials.frozen(int(standing.trial.id)).intermediate_values
        assert list(steps) == list(range(1, len(standing.values) + 1))
    assert {s.trial.recipe.epochs for s in study.standings if s.state == "pruned"} <= {0.5, 1.0}
    assert any(s.state == "pruned" for s in study.standings)


# Tables


def test_tables_have_a_column_for_each_fold_and_the_mean_so_far(run: Run) -> None:
    study = run(folded(scheduler=wilcoxon_at(0.15), trials=12))
    table = outcomes(study.standings, study.plan.space.names)
    assert list(losses_of(table).columns) == list(range(1, FOLDS + 1))
    for standing, (_, row) in zip(study.standings, table.iterrows(), strict=True):
        losses = list(standing.values.values())
        assert row["loss"] == pytest.approx(np.mean(losses))
        assert (row["rung"], row["examples_seen"]) == (len(losses), len(losses) * HORIZON)
        if standing.state == "pruned":
            assert row["reason"].startswith(f"stopped after fold {len(losses)} of {FOLDS}: ")
    learnt = trials_table(study.standings, study.plan.space.names)
    for number, rows in learnt.groupby("trial"):
        losses = list(study.standings[number].values.values())
        means = np.cumsum(losses) / np.arange(1, len(losses) + 1)
        assert rows["loss"].tolist() == pytest.approx(means.tolist())
