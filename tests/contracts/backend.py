"""What every backend promises; subclassed once per backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from sweep.engines import checkpoint
from sweep.engines.inputs import Inputs
from sweep.errors import ModelError
from sweep.search.loop import Jobs, run_jobs, search
from sweep.search.scheduler import Full
from sweep.types import Backend, Capacity, Done, Engine, Job, Progress, Report, Wait
from tests.backends.engines import Absent, Noted, Slow, noted
from tests.contracts.engine import RECIPE, job
from tests.studies import PLAN, open_study, synthetic_engine, synthetic_inputs

JOBS = [job(0, 24, trial=str(number)) for number in range(6)]


class Asked(Jobs):
    """Jobs, and who asked for them."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(jobs)
        self.threads: set[int] = set()

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        self.threads.add(threading.get_ident())
        return super().next(capacity)


class BackendContract:
    """Give `make_backend`. engines: how many it may make."""

    engines = 1

    @staticmethod
    def make_backend(make_engine: Callable[[], Engine], folder: Path) -> Backend:
        raise NotImplementedError

    @pytest.fixture
    def inputs(self, tmp_path: Path) -> Inputs:
        return synthetic_inputs(tmp_path)

    @pytest.fixture
    def backend(self, inputs: Inputs, tmp_path: Path) -> Iterator[Backend]:
        with closing(self.make_backend(partial(Noted, inputs=inputs), tmp_path)) as backend:
            yield backend

    def test_each_job_gets_one_report_with_its_own_attempt(self, backend: Backend) -> None:
        answered = [event for event in backend.run(Jobs(JOBS)) if isinstance(event, Report)]
        assert sorted((r.job, r.attempt, r.state) for r in answered) == [(j.id, 3, "reached") for j in JOBS]

    def test_steps_come_in_their_order_and_before_the_report(self, backend: Backend) -> None:
        events: dict[str, list[int]] = {}
        for event in backend.run(Jobs(JOBS)):
            events.setdefault(event.job, []).append(event.examples_seen)
            if isinstance(event, Report):
                events[event.job].append(-1)
        assert events == {one.id: [8, 16, 24, 24, -1] for one in JOBS}

    def test_the_losses_are_those_of_the_engine(self, backend: Backend, tmp_path: Path) -> None:
        expected = synthetic_engine(tmp_path).expected(RECIPE, 24, 7)
        assert {report.validation_loss for report in run_jobs(JOBS, backend).values()} == {expected}

    def test_engines_are_kept_for_the_next_run(self, backend: Backend, tmp_path: Path) -> None:
        run_jobs(JOBS, backend)
        made = noted(tmp_path, "engines")
        assert 1 <= len(made) <= self.engines
        again = run_jobs([job(0, 24, trial=f"again{number}") for number in range(6)], backend)
        assert len(again) == 6
        assert len(noted(tmp_path, "engines")) <= self.engines

    def test_each_worker_holds_a_device_before_and_after_its_first_job(self, backend: Backend) -> None:
        before = tuple(backend.devices)
        assert len(before) == self.engines
        assert all(held >= 1 for held in before)
        run_jobs(JOBS, backend)
        assert tuple(backend.devices) == before

    def test_a_run_without_jobs_ends(self, backend: Backend) -> None:
        assert list(backend.run(Jobs([]))) == []

    def test_only_the_thread_that_runs_it_is_asked_for_jobs(self, backend: Backend) -> None:
        source = Asked(JOBS)
        assert len(run_jobs(source, backend)) == 6
        assert source.threads == {threading.get_ident()}

    def test_interrupted_it_keeps_a_checkpoint_of_all_that_ran(self, inputs: Inputs, tmp_path: Path) -> None:
        with closing(self.make_backend(partial(Slow, inputs=inputs), tmp_path)) as backend:
            source = Jobs([job(0, 10**6, trial=str(number), horizon=10**6) for number in range(6)])
            stopped: list[Report] = []
            for event in backend.run(source):
                if isinstance(event, Progress):
                    source.interrupt()
                else:
                    stopped.append(event)
            assert 1 <= len(stopped) <= self.engines
            assert {report.state for report in stopped} == {"stopped"}
            ran = [report for report in stopped if report.checkpoint]
            assert any(report.examples_seen for report in ran)
            rest, straight = [], {}
            for report in ran:
                assert checkpoint.verified(Path(report.checkpoint or ""))
                # However far it came before it heard of the interruption.
                seen, on = report.examples_seen, report.examples_seen + 24
                rest.append(job(seen, on, checkpoint=report.checkpoint, trial=report.trial, horizon=10**6))
                straight[report.trial] = synthetic_engine(tmp_path).expected(RECIPE, on, 7)
            found = run_jobs(rest, backend).values()
            assert {report.trial: report.validation_loss for report in found} == straight

    def test_what_no_engine_could_mend_is_raised_here(self, inputs: Inputs, tmp_path: Path) -> None:
        with (
            closing(self.make_backend(partial(Absent, inputs=inputs), tmp_path)) as backend,
            pytest.raises(ModelError, match=r"^model\.path=/nowhere: no such folder\.$"),
        ):
            run_jobs(JOBS, backend)

    def test_left_early_it_runs_again(self, backend: Backend) -> None:
        for _ in backend.run(Jobs(JOBS)):
            break
        reports = run_jobs([job(0, 24, trial=f"after{number}") for number in range(4)], backend)
        assert {report.state for report in reports.values()} == {"reached"}

    def test_closing_it_closes_its_engines(self, backend: Backend, tmp_path: Path) -> None:
        run_jobs(JOBS, backend)
        assert noted(tmp_path, "closed") == []
        backend.close()
        made = [line.split()[0] for line in noted(tmp_path, "engines")]
        assert sorted(noted(tmp_path, "closed")) == sorted(made)

    def test_closed_twice_it_still_runs_again(self, backend: Backend) -> None:
        run_jobs(JOBS[:1], backend)
        backend.close()
        backend.close()
        assert [*run_jobs(JOBS[1:2], backend)] == ["1@24"]

    def test_a_study_is_that_of_its_seed(self, backend: Backend, tmp_path: Path) -> None:
        """Random search without pruning: recipes and losses are the same wherever trials run."""
        study = open_study(scheduler=Full(), trials=40)
        search(study, backend, [])
        expected = synthetic_engine(tmp_path).expected
        assert [standing.trial.number for standing in study.standings] == list(range(40))
        assert {standing.state for standing in study.standings} == {"complete"}
        for standing in study.standings:
            recipe = standing.trial.recipe
            assert standing.loss == expected(recipe, study.route.rungs(recipe)[-1], PLAN.seed)
        alone = open_study(scheduler=Full(), trials=40)
        recipes = [alone.next(Capacity()) for _ in range(40)]
        assert [one.trial.recipe for one in recipes if isinstance(one, Job)] == [
            standing.trial.recipe for standing in study.standings
        ]
