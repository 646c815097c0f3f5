"""The engine in the driver's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sweep.types import Engine, Progress, Report, Source


class Inline:
    """One engine, made on the first run and kept for the next, so that its base model loads once."""

    def __init__(self, *, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine: Engine | None = None

    @property
    def devices(self) -> Sequence[float]:
        return (1,)

    def run(self, source: Source) -> Iterator[Progress | Report]:
        if self._engine is None:
            self._engine = self._make_engine()
        yield from self._engine.run(source)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
