"""A backend that reminds the driver to store what it has spent, whatever stage it works for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from sweep.types import Backend, Capacity, Done, Job, Progress, Report, Source, Wait

# Storing it is a transaction of its own; a kill loses what was spent since.
KEEP_SECONDS = 10.0


class Metered:
    """Another backend. keep: stores what was spent, unless it did so less than the given seconds ago.

    It is called before each event is handed on, when the source is asked what is cancelled, as it is while a
    backend waits for a place to train, and when a run has come to its end; always in the thread of that run.
    """

    def __init__(self, backend: Backend, keep: Callable[[float], None]) -> None:
        self._backend = backend
        self._keep = keep

    @property
    def devices(self) -> Sequence[float]:
        return self._backend.devices

    def run(self, source: Source) -> Iterator[Progress | Report]:
        for event in self._backend.run(_Watched(source, self._keep, thread=threading.get_ident())):
            self._keep(KEEP_SECONDS)
            yield event
        self._keep(0.0)

    def close(self) -> None:
        self._backend.close()


class _Watched:
    """A source. Devices come between events, too: they were not held for all the time since the last one."""

    def __init__(self, source: Source, keep: Callable[[float], None], *, thread: int) -> None:
        self._source = source
        self._keep = keep
        self._thread = thread

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        return self._source.next(capacity)

    def cancelled(self) -> frozenset[str]:
        # An engine may ask from a thread of its own, where what storing raises would be a trial's failure.
        if threading.get_ident() == self._thread:
            self._keep(KEEP_SECONDS)
        return self._source.cancelled()
