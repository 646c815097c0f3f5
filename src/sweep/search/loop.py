"""The whole search: one loop, whatever the engine, the backend and the observers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from sweep.search.study import Study
from sweep.types import Backend, Capacity, Done, Job, Observer, Report, Wait


def search(study: Study, backend: Backend, observers: Sequence[Observer]) -> None:
    """Run jobs until the study has none left. Every event is recorded before anyone hears of it."""
    for event in backend.run(study):
        heard = study.record(event)
        for observer in observers:
            observer.log(heard)


class Jobs:
    """A source of fixed jobs, for what is trained or scored outside the search."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = deque(jobs)
        self._out: frozenset[str] = frozenset()
        self._interrupted = False

    def interrupt(self) -> None:
        """Hand out nothing more and cancel what is out."""
        self._interrupted = True

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if self._interrupted or not self._waiting:
            return Done()
        job = self._waiting.popleft()
        self._out |= {job.id}
        return job

    def cancelled(self) -> frozenset[str]:
        return self._out if self._interrupted else frozenset()


def run_jobs(
    jobs: Sequence[Job] | Jobs, backend: Backend, observers: Sequence[Observer] = ()
) -> dict[str, Report]:
    """The report of each job by its id; an interrupted source leaves out those that were not begun."""
    reports = {}
    for event in backend.run(jobs if isinstance(jobs, Jobs) else Jobs(jobs)):
        if isinstance(event, Report):
            reports[event.job] = event
        for observer in observers:
            observer.log(event)
    return reports
