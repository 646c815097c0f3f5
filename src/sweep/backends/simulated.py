"""Any number of workers in virtual time: how a search goes on a cluster that nobody has."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from sweep.types import Capacity, Done, Engine, Job, Progress, Report, Source, Wait


class Simulated:
    """Each job takes its `seconds` of virtual time, whatever it takes here; events come in their order.

    The driver alone is real: what it does with an event, and to answer who asks, takes as long as the clock
    tells, one after the other, and workers wait for it. How far an event lies on a job's way its examples
    tell. Each worker has an engine of its own, made for its first job and run from one event to the next, so
    this is for engines that train nothing.

    now: virtual seconds. busy: of them, the driver's. waited: worker-seconds without a job, until the last
    one was handed out.
    """

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
        workers: int,
        seconds: Callable[[Job], float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.now = 0.0
        self.busy = 0.0
        self.waited = 0.0
        self._workers = [_Worker(str(number), make_engine) for number in range(workers)]
        self._seconds = seconds
        self._clock = clock

    @property
    def devices(self) -> Sequence[float]:
        return (1,) * len(self._workers)

    def run(self, source: Source) -> Iterator[Progress | Report]:
        # Numbered, so that of two events at one time the first one known comes first.
        due: list[tuple[float, int, _Stretch, Progress | Report]] = []
        order, free, asks = count(), deque(self._workers), True
        for worker in free:
            worker.since = self.now

        def expect(stretch: _Stretch) -> None:
            at, event = stretch.next_event()
            heapq.heappush(due, (at, next(order), stretch, event))

        while True:
            while asks and free:
                began = self._clock()
                answer = source.next(Capacity(worker=free[0].name))
                self._spend(began)
                if asks := isinstance(answer, Job):
                    worker = free.popleft()
                    self.waited += self.now - worker.since
                    expect(worker.begin(answer, source, self.now, self._seconds(answer)))
            if not due:
                return
            at, _, stretch, event = heapq.heappop(due)
            self.now = max(self.now, at)
            began = self._clock()
            yield event
            self._spend(began)
            if isinstance(event, Report):
                stretch.worker.since, asks = at, True
                free.append(stretch.worker)
            else:
                expect(stretch)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _spend(self, began: float) -> None:
        """Let the time pass that the driver has been at work."""
        spent = self._clock() - began
        self.busy += spent
        self.now += spent


class _Worker:
    """since: when it became free."""

    def __init__(self, name: str, make_engine: Callable[[], Engine]) -> None:
        self.name = name
        self.since = 0.0
        self._make_engine = make_engine
        self._engine: Engine | None = None

    def begin(self, job: Job, source: Source, at: float, seconds: float) -> _Stretch:
        if self._engine is None:
            self._engine = self._make_engine()
        return _Stretch(self, job, at, seconds, self._engine.run(_Single(job, source)))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


class _Stretch(NamedTuple):
    """A worker's job: since when, for how long, and what is still to come of it."""

    worker: _Worker
    job: Job
    began: float
    seconds: float
    events: Iterator[Progress | Report]

    def next_event(self) -> tuple[float, Progress | Report]:
        """When it comes, and what it is."""
        event, way = next(self.events), self.job.stop - self.job.start
        share = (event.examples_seen - self.job.start) / way if way else 1.0
        return self.began + share * self.seconds, event


class _Single:
    """A source of one job, which is cancelled where it came from."""

    def __init__(self, job: Job, source: Source) -> None:
        self._job: Job | None = job
        self._source = source

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        job, self._job = self._job, None
        return job or Done()

    def cancelled(self) -> frozenset[str]:
        return self._source.cancelled()
