"""Workers in virtual time keep every backend's promises, and wait for the driver as queueing theory says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.backends.simulated import Simulated
from sweep.search.loop import Jobs, search
from sweep.search.scheduler import Full
from sweep.types import Backend, Capacity, Done, Engine, Job, Progress, Report, Wait
from tests.contracts.backend import BackendContract
from tests.contracts.engine import job
from tests.studies import open_study, synthetic_engine


class TestSimulated(BackendContract):
    engines = 2

    @staticmethod
    def make_backend(make_engine: Callable[[], Engine], folder: Path) -> Backend:
        return Simulated(make_engine=make_engine, workers=2, seconds=lambda job: 30.0)


class Driver(Jobs):
    """Takes so many seconds to answer who asks for a job, and none for anything else."""

    def __init__(self, jobs: list[Job], *, seconds: float) -> None:
        super().__init__(jobs)
        self.time = 0.0
        self._seconds = seconds

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        answer = super().next(capacity)
        self.time += self._seconds if isinstance(answer, Job) else 0.0
        return answer


@pytest.mark.parametrize("workers", [1, 5, 31, 60])
def test_one_driver_feeds_as_many_workers_as_queueing_theory_says(tmp_path: Path, workers: int) -> None:
    """Each turn takes a worker 30 s, the driver 1 s: one of `workers` comes round after max(31, workers) s.

    The bounds of operational analysis, which are exact where nothing varies: Denning and Buzen 1978, ACM
    Computing Surveys 10:225.
    """
    engine, turns = synthetic_engine(tmp_path), 20
    driver = Driver([job(0, 8, trial=str(number)) for number in range(turns * workers)], seconds=1.0)
    backend = Simulated(
        make_engine=lambda: engine, workers=workers, seconds=lambda job: 30.0, clock=lambda: driver.time
    )
    reports = [event for event in backend.run(driver) if isinstance(event, Report)]
    assert len(reports) == turns * workers
    assert backend.busy == turns * workers
    # The last job of all begins when every one was handed out.
    assert backend.now == pytest.approx((turns - 1) * max(31, workers) + workers + 30)
    # Each begins with a queue of all: then a second for its own hand-out, or all that the others take.
    queued = workers * (workers + 1) / 2
    assert backend.waited == pytest.approx(queued + (turns - 1) * workers * (max(31, workers) - 30))


def test_events_come_in_the_order_of_virtual_time(tmp_path: Path) -> None:
    engine = synthetic_engine(tmp_path)
    jobs = [job(0, 24, trial="slow"), job(0, 8, trial="fast"), job(0, 16, trial="next")]
    backend = Simulated(
        make_engine=lambda: engine,
        workers=2,
        seconds=lambda job: {"slow": 30.0, "fast": 5.0, "next": 10.0}[job.trial.id],
        clock=lambda: 0.0,
    )
    heard = [
        (backend.now, event.trial, event.examples_seen, isinstance(event, Report))
        for event in backend.run(Jobs(jobs))
    ]
    assert heard == [
        (5.0, "fast", 8, False),
        (5.0, "fast", 8, True),
        (10.0, "slow", 8, False),
        (10.0, "next", 8, False),
        (15.0, "next", 16, False),
        (15.0, "next", 16, True),
        (20.0, "slow", 16, False),
        (30.0, "slow", 24, False),
        (30.0, "slow", 24, True),
    ]
    assert (backend.busy, backend.waited) == (0.0, 0.0)


def test_a_hundred_workers_search_as_one_does(tmp_path: Path) -> None:
    """What is drawn at random and trained to the end depends on nobody's order."""
    engine, found = synthetic_engine(tmp_path), []
    for workers in (1, 100):
        study = open_study(scheduler=Full(), trials=120)
        backend = Simulated(
            make_engine=lambda: engine, workers=workers, seconds=lambda job: float(job.trial.recipe.lora_rank)
        )
        search(study, backend, [])
        found.append([(one.trial.recipe, one.state, one.values) for one in study.standings])
    assert found[0] == found[1]


def test_only_a_report_makes_who_waits_ask_again(tmp_path: Path) -> None:
    class Counted(Jobs):
        asked = 0

        def next(self, capacity: Capacity) -> Job | Wait | Done:
            self.asked += 1
            return super().next(capacity)

    engine, source = synthetic_engine(tmp_path), Counted([job(0, 24)])
    backend = Simulated(make_engine=lambda: engine, workers=3, seconds=lambda job: 1.0)
    steps = [event for event in backend.run(source) if isinstance(event, Progress)]
    assert len(steps) == 3
    assert source.asked == 3
