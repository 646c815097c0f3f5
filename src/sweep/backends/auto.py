"""The pool where this machine has two GPUs or more, else the driver's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sweep.backends.devices import visible_gpus
from sweep.backends.inline import Inline
from sweep.backends.pool import Pool
from sweep.types import Backend, Engine, Progress, Report, Source


class Auto:
    """Takes what `Pool` takes; with a number of workers, or of devices for each, it is one."""

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
        logs: str,
        workers: int | None,
        devices_per_worker: int,
        start_seconds: float,
        silent_seconds: float,
        deaths: int,
    ) -> None:
        self._chosen: Backend
        if workers is None and devices_per_worker == 1 and len(visible_gpus()) < 2:
            self._chosen = Inline(make_engine=make_engine)
            return
        self._chosen = Pool(
            make_engine=make_engine,
            logs=logs,
            workers=workers,
            devices_per_worker=devices_per_worker,
            start_seconds=start_seconds,
            silent_seconds=silent_seconds,
            deaths=deaths,
        )

    @property
    def devices(self) -> Sequence[float]:
        return self._chosen.devices

    def run(self, source: Source) -> Iterator[Progress | Report]:
        return self._chosen.run(source)

    def close(self) -> None:
        self._chosen.close()
