"""The whole search: one loop, whatever the engine, the backend and the observers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from sweep.search.study import Study
from sweep.types import Backend, Capacity, Done, Job, Observer, Report, Wait


def search(study: Study, backend: Backend, observers: Sequence[Observer]) -> None:
    """Run jobs until the study has none left. Every event is recorded before anyone hears of it."""
    for event in backend.run(study):
        study.record(event)
        for observer in observers:
            observer.log(event)


class Jobs:
    """A source of fixed jobs, for what is trained or scored outside the search."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = deque(jobs)
        self._interrupted = False

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        return self._waiting.popleft() if self._waiting and not self._interrupted else Done()

    def cancelled(self) -> frozenset[str]:
        return frozenset()


def run_jobs(jobs: Sequence[Job], backend: Backend, observers: Sequence[Observer] = ()) -> dict[str, Report]:
    """The report of each job by its id."""
    reports = {}
    for event in backend.run(Jobs(jobs)):
        if isinstance(event, Report):
            reports[event.job] = event
        for observer in observers:
            observer.log(event)
    return reports
