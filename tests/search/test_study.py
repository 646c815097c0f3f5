"""What a study promises: numbers without gaps, nothing lost or doubled, whenever its driver dies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from sweep.backends.metered import KEEP_SECONDS
from sweep.engines import checkpoint
from sweep.engines.synthetic import Synthetic
from sweep.errors import StudyError
from sweep.search.allowance import SEARCH_SHARE
from sweep.search.loop import Jobs
from sweep.search.scheduler import Full, Pruned
from sweep.search.space import Space
from sweep.search.storage import PausedAsPruned, open_storage
from sweep.search.stored import read_study
from sweep.search.study import Study
from sweep.types import Capacity, Done, Progress, Report, View
from tests.recipes import DEFAULTS
from tests.search.dying import Killed, survived
from tests.studies import PLAN, handed_out, minutes, open_study

Run = Callable[..., Study]


def outline(study: Study) -> list[tuple[Any, ...]]:
    return [(s.trial.number, s.trial.recipe, s.state, s.values) for s in study.standings]


def test_every_value_is_the_closed_form_of_its_trial(run: Run, synthetic: Synthetic) -> None:
    study = run(open_study(trials=20))
    assert [s.trial.number for s in study.standings] == list(range(20))
    for standing in study.standings:
        for rung, loss in standing.values.items():
            assert loss == synthetic.expected(standing.trial.recipe, rung, standing.trial.seed)


def test_trial_0_is_the_recipe_itself_and_runs_to_the_end(run: Run) -> None:
    defaults = run(open_study()).standing("0")
    assert defaults.trial.recipe == DEFAULTS
    assert list(defaults.values) == [32, 96, 288]
    assert defaults.state == "complete"


def test_the_best_is_the_complete_trial_with_the_lowest_final_loss(run: Run) -> None:
    study = run(open_study(trials=20))
    complete = [s for s in study.standings if s.state == "complete"]
    assert study.best is not None
    assert study.best.loss == min(s.values[288] for s in complete)


@pytest.mark.parametrize("first_writes", range(1, 160, 7))
def test_a_driver_killed_at_any_write_loses_and_doubles_nothing(run: Run, first_writes: int) -> None:
    undisturbed = outline(run(open_study(scheduler=Full())))
    study, disk = survived(lambda disk: run(open_study(disk, scheduler=Full())), first=first_writes)
    assert outline(study) == undisturbed
    assert outline(open_study(disk, scheduler=Full())) == undisturbed


def test_a_killed_driver_goes_on_with_the_job_that_was_out(run: Run) -> None:
    class DieAt:
        """Dies when trial 0 is half way to its second rung."""

        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Progress) and event.examples_seen == 64:
                raise Killed

    disk = InMemoryStorage()
    with pytest.raises(Killed):
        run(open_study(disk), DieAt())
    job = handed_out(open_study(disk))
    assert (job.id, job.start, job.attempt) == ("0@96", 32, 1)


def test_a_report_of_an_attempt_that_was_given_up_is_discarded() -> None:
    disk = InMemoryStorage()
    first = handed_out(open_study(disk))
    study = open_study(disk)
    second = handed_out(study)
    late = Report(
        job=first.id, trial="0", attempt=first.attempt, examples_seen=32, state="reached", validation_loss=0.1
    )
    study.record(late)
    assert study.standing("0").values == {}
    study.record(replace(late, attempt=second.attempt, validation_loss=2.0))
    assert study.standing("0").values == {32: 2.0}


def test_resuming_never_adds_trials(run: Run) -> None:
    disk = InMemoryStorage()
    before = outline(run(open_study(disk)))
    assert outline(run(open_study(disk))) == before


def test_a_larger_budget_goes_on_where_the_smaller_ended(run: Run) -> None:
    disk = InMemoryStorage()
    before = run(open_study(disk, trials=6, scheduler=Full()))
    after = run(open_study(disk, trials=9, scheduler=Full()))
    assert outline(after)[:6] == outline(before)
    assert len(after.standings) == 9


def test_interrupting_keeps_what_was_trained(run: Run) -> None:
    disk = InMemoryStorage()
    study = open_study(disk)

    class Interrupt:
        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Progress) and event.examples_seen == 64:
                study.interrupt()

    run(study, Interrupt())
    assert isinstance(study.next(Capacity()), Done)
    job = handed_out(open_study(disk))
    assert (job.id, job.start) == ("0@96", 64)


@pytest.mark.parametrize("reason", ["diverged", "infeasible", "failed"])
def test_a_trial_that_ends_badly_is_never_ranked_and_stops_nothing(
    run: Run, synthetic: Synthetic, reason: Any
) -> None:
    study = open_study(scheduler=Full())
    for event in synthetic.run(Jobs([handed_out(study)])):
        study.record(event)
    job = handed_out(study)
    study.record(Report(job=job.id, trial="1", attempt=0, examples_seen=8, state=reason, error="because"))
    standing = study.standing("1")
    assert (standing.state, standing.reason) == (reason, "because")
    run(study)
    assert len(study.standings) == PLAN.trials
    assert study.best is not None
    assert study.best.trial.number != 1


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf, None])
def test_a_rung_without_a_finite_loss_is_a_divergence(run: Run, tmp_path: Path, given: float | None) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = open_study(open_storage(url), scheduler=Full())
    handed_out(study)
    job = handed_out(study)
    with checkpoint.writing(tmp_path / "288"):
        somewhere = tmp_path / "288"
    study.record(
        Report(
            job=job.id,
            trial="1",
            attempt=0,
            examples_seen=job.stop,
            state="reached",
            validation_loss=given,
            bits_per_byte=given,
            checkpoint=str(somewhere),
        )
    )
    standing = study.standing("1")
    assert (standing.state, standing.values) == ("diverged", {})
    assert f"with validation_loss={given}" in str(standing.reason)
    assert not somewhere.exists()
    ended = run(open_study(open_storage(url), scheduler=Full()))
    assert ended.standing("1").state == "diverged"
    assert [s.state for s in ended.standings].count("complete") == PLAN.trials - 1


def test_a_trial_that_optuna_holds_as_failed_is_never_handed_out_again(run: Run) -> None:
    disk = InMemoryStorage()
    study = open_study(disk)
    run(study)
    (pruned, *_) = [s.trial for s in study.standings if s.state == "pruned"]
    disk._get_trial(pruned.number).state = TrialState.FAIL
    assert open_study(disk).standing(pruned.id).state == "failed"
    assert read_study(disk, PLAN.name).standings[pruned.number].state == "failed"


def test_a_failing_trial_0_stops_the_search_and_is_tried_again() -> None:
    disk = InMemoryStorage()
    study = open_study(disk)
    job = handed_out(study)
    report = Report(job=job.id, trial="0", attempt=0, examples_seen=0, state="failed", error="no such layer")
    with pytest.raises(StudyError, match="no such layer"):
        study.record(report)
    assert handed_out(open_study(disk)).id == job.id


def test_a_broken_checkpoint_costs_a_rung_and_not_the_trial(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    disk = InMemoryStorage()
    straight_on = Pruned(eta=3, rungs=3, pruner=NopPruner())
    study = open_study(disk, scheduler=straight_on)

    class BreakAfter96:
        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Report) and event.examples_seen == 96:
                (Path(event.checkpoint or "") / "state.json").write_text("half")
                study.interrupt()

    run(study, BreakAfter96())
    job = handed_out(open_study(disk, scheduler=straight_on))
    assert (job.id, job.start, job.stop) == ("0@288", 32, 288)
    assert "goes on from an earlier state" in caplog.text
    assert run(open_study(disk, scheduler=straight_on)).standing("0").state == "complete"


@pytest.fixture(params=["memory", "sqlite"])
def disk_of_two(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], BaseStorage]:
    """Opens one storage as each of two drivers does."""
    if request.param == "memory":
        memory = InMemoryStorage()
        return lambda: memory
    return lambda: open_storage(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_second_driver_in_the_same_storage_is_noticed(disk_of_two: Callable[[], BaseStorage]) -> None:
    mine, other = open_study(disk_of_two()), open_study(disk_of_two())
    handed_out(mine)
    with pytest.raises(StudyError, match="One study has one driver"):
        handed_out(other)


def test_a_second_driver_that_comes_later_is_noticed(disk_of_two: Callable[[], BaseStorage]) -> None:
    mine = open_study(disk_of_two())
    handed_out(mine)
    other = open_study(disk_of_two())
    assert [handed_out(other).trial.id for _ in range(2)] == ["0", "1"]
    with pytest.raises(StudyError, match="One study has one driver"):
        handed_out(mine)


def test_a_name_without_trials_may_be_used_for_another_search() -> None:
    disk = InMemoryStorage()
    open_study(disk, fingerprint={"data": "typo"})
    handed_out(open_study(disk, fingerprint={"data": "right"}))
    with pytest.raises(StudyError, match="data: was right, is typo"):
        open_study(disk, fingerprint={"data": "typo"})


def test_trial_0_is_trained_even_when_the_time_is_gone(run: Run) -> None:
    now = iter(range(0, 10**9, 1000))
    study = run(open_study(bounds=minutes(1), clock=lambda: float(next(now))))
    assert study.standing("0").state == "complete"


def test_higher_rungs_are_judged_on_more_of_the_same_rows() -> None:
    plan = replace(PLAN, evaluation=View("validation", 32), least_rows=8)
    rows = [plan.judged_on(examples, 90).rows for examples in (10, 30, 60, 90)]
    assert rows == [8, 11, 22, 32]
    assert replace(plan, evaluation=View("validation")).judged_on(10, 90) == View("validation")
    study = open_study(evaluation=View("validation", 32), least_rows=8)
    job = handed_out(study)
    assert job.evaluation == study.plan.judged_on(job.stop, job.horizon)
    assert (job.evaluation.rows or 0) < 32


def test_the_ladder_counts_trial_0_where_a_condition_hides_the_batch_size() -> None:
    space = Space.from_mapping(
        {"lora_rank": {"choices": [4, 16]}, "batch_size": {"choices": [4, 8], "when": "lora_rank > 16"}}
    )
    study = open_study(space=space, defaults=replace(DEFAULTS, batch_size=32), train_rows=200)
    assert all(rung % 32 == 0 for rung in study.ladder)


def test_divergence_teaches_the_sampler_to_stay_away(run: Run) -> None:
    # Above 0.02 the closed form diverges: half of this space in log scale.
    space = Space.from_mapping({"learning_rate": {"low": 2e-4, "high": 2.0, "log": True}})

    def tpe(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)

    study = run(open_study(sampler=tpe, space=space, trials=50, scheduler=Full()))
    late = study.standings[20:]
    assert sum(s.state == "diverged" for s in late) <= len(late) * 0.2


@pytest.mark.parametrize(
    "rates",
    [
        {"low": 2e-4, "high": 2.0, "log": True},
        # Few enough to be drawn twice.
        {"choices": [1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0]},
    ],
)
def test_a_gaussian_process_proposes_no_divergence_twice(run: Run, rates: dict[str, object]) -> None:
    space = Space.from_mapping({"learning_rate": rates, "lora_rank": {"choices": [4, 8, 16, 32, 64]}})

    def gp(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=6)

    study = run(open_study(sampler=gp, space=space, trials=26, scheduler=Full()))
    diverged = [s.trial.recipe for s in study.standings if s.state == "diverged"]
    assert 0 < len(diverged) < 6
    assert len(set(diverged)) == len(diverged)


def test_a_paused_trial_is_shown_to_samplers_as_pruned_and_stored_as_running() -> None:
    disk = InMemoryStorage()
    study = optuna.create_study(storage=PausedAsPruned(disk, lambda number: number == 0))
    for _ in range(2):
        study.ask().report(1.0, step=32)
    shown = study.get_trials(deepcopy=False)
    assert [trial.state for trial in shown] == [TrialState.PRUNED, TrialState.RUNNING]
    assert shown[0].intermediate_values == {32: 1.0}
    assert {trial.state for trial in disk.get_all_trials(study._study_id)} == {TrialState.RUNNING}


def test_another_fingerprint_is_refused_with_the_differences() -> None:
    disk = InMemoryStorage()
    handed_out(open_study(disk, fingerprint={"data": "a", "seed": "0"}))
    with pytest.raises(StudyError) as refusal:
        open_study(disk, fingerprint={"data": "b", "seed": "0"}, train_rows=500)
    message = str(refusal.value)
    assert "data: was a, is b" in message
    assert "rungs (examples): was 32 96 288, is 32 160 512" in message
    assert "seed" not in message
    assert "name=closed_form_2" in message


def test_an_optuna_pruner_decides_at_the_rungs(run: Run) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    study = run(open_study(scheduler=Pruned(eta=3, rungs=3, pruner=pruner), trials=20))
    states = [s.state for s in study.standings]
    assert states[0] == "complete"
    assert "pruned" in states
    for standing in study.standings:
        assert list(standing.values) == [32, 96, 288][: len(standing.values)]


def test_searched_epochs_end_trials_at_their_own_horizon(run: Run) -> None:
    space = Space.from_mapping({"epochs": {"choices": [0.5, 1.0]}})
    study = run(open_study(space=space, defaults=replace(DEFAULTS, schedule="constant"), scheduler=Full()))
    ends = {s.trial.recipe.epochs: max(s.values) for s in study.standings}
    assert ends == {0.5: 144, 1.0: 288}


def test_out_of_time_starts_nothing_more_but_still_lands_a_winner(run: Run) -> None:
    now = iter(range(10**6))
    bounds = minutes(200 / 60 / SEARCH_SHARE)
    study = run(open_study(trials=1000, bounds=bounds, clock=lambda: float(next(now))))
    assert 2 <= len(study.standings) < 1000
    assert study.best is not None
    assert any(s.state == "complete" and s.trial.number != 0 for s in study.standings)
    assert not any(s.state in ("paused", "running") for s in study.standings)


def test_time_spent_is_kept_over_restarts(run: Run) -> None:
    disk = InMemoryStorage()
    clock = iter(range(10**6))
    spent = run(open_study(disk, clock=lambda: float(next(clock)))).seconds_spent
    assert open_study(disk, clock=lambda: 0.0).seconds_spent == pytest.approx(spent, abs=3)


def test_a_kill_takes_few_seconds_off_the_time_spent(run: Run) -> None:
    disk, now = InMemoryStorage(), [0.0]
    study = open_study(disk, clock=lambda: now[0])
    kept = []

    class Tick:
        """Four seconds a report."""

        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Report):
                kept.append(read_study(disk, PLAN.name).seconds_spent)
                assert study.seconds_spent - kept[-1] < KEEP_SECONDS
                now[0] += 4

    run(study, Tick())
    assert len(set(kept)) < len(kept) / 2
    assert read_study(disk, PLAN.name).seconds_spent == now[0]


def test_checkpoints_of_trials_that_are_out_are_removed(run: Run, tmp_path: Path) -> None:
    study = run(open_study())
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if any(path.iterdir())}
    assert kept == {s.trial.number for s in study.standings if s.state == "complete"}


def test_the_same_study_lives_in_sqlite(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    stored = outline(run(open_study(open_storage(url))))
    assert stored == outline(run(open_study()))
    assert outline(open_study(open_storage(url))) == stored


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "oracle://u:secret@h/d"])
def test_a_storage_that_cannot_be_opened_says_what_it_must_be(url: str) -> None:
    with pytest.raises(StudyError, match="SQLAlchemy URL") as refusal:
        open_storage(url)
    assert "secret" not in str(refusal.value)


def test_nothing_unfinite_reaches_optuna(run: Run) -> None:
    study = open_study()
    job = handed_out(study)
    study.record(Report(job=job.id, trial="0", attempt=0, examples_seen=8, state="diverged", error="nan"))
    frozen = study._optuna.get_trials(deepcopy=False)[0]
    assert frozen.state is TrialState.PRUNED
    assert frozen.values is None or not math.isnan(frozen.values[0])
    assert frozen.constraints == {"diverged": 1.0}


def test_a_trial_stopped_before_it_was_scored_is_only_scored(tmp_path: Path) -> None:
    disk = InMemoryStorage()
    with checkpoint.writing(tmp_path / "32"):
        somewhere = str(tmp_path / "32")
    study = open_study(disk)
    job = handed_out(study)
    study.record(
        Report(job=job.id, trial="0", attempt=0, examples_seen=32, state="stopped", checkpoint=somewhere)
    )
    again = handed_out(open_study(disk))
    assert (again.id, again.start, again.stop, again.checkpoint) == ("0@32", 32, 32, somewhere)


def test_what_a_stopped_stretch_cost_counts() -> None:
    study = open_study(InMemoryStorage())
    for attempt, (state, seconds) in enumerate((("stopped", 2.0), ("stopped", 3.0), ("reached", 4.0))):
        job = handed_out(study)
        assert (job.id, job.attempt) == ("0@32", attempt)
        study.record(
            Report(
                job=job.id,
                trial="0",
                attempt=attempt,
                examples_seen=32 if state == "reached" else 8,
                state=state,  # type: ignore[arg-type]
                validation_loss=2.0 if state == "reached" else None,
                seconds=seconds,
                tokens=100,
            )
        )
    (report,) = study.standing("0").reports
    assert (report.seconds, report.tokens) == (9.0, 300)
