"""A backend whose events remind the driver to store what it has spent, whatever stage they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sweep.types import Backend, Progress, Report, Source

# Storing it is a transaction of its own; a kill loses what was spent since.
KEEP_SECONDS = 10.0


class Metered:
    """Another backend. keep: stores what was spent, unless it did so less than the given seconds ago.

    It is called before each event is handed on and when a run has come to its end.
    """

    def __init__(self, backend: Backend, keep: Callable[[float], None]) -> None:
        self._backend = backend
        self._keep = keep

    @property
    def devices(self) -> Sequence[float]:
        return self._backend.devices

    def run(self, source: Source) -> Iterator[Progress | Report]:
        for event in self._backend.run(source):
            self._keep(KEEP_SECONDS)
            yield event
        self._keep(0.0)

    def close(self) -> None:
        self._backend.close()
