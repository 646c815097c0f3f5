"""One worker process for each GPU of this machine, or several on its CPU; a dead one costs no trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from sweep.backends.child import Child
from sweep.backends.crew import Crew
from sweep.backends.devices import cores, visible_gpus
from sweep.backends.seat import Seat
from sweep.errors import ConfigError
from sweep.schema import require
from sweep.types import Engine


class Pool(Crew):
    """A crew on this machine.

    logs: the folder of the workers' logs, one file each. workers: None for one per GPU. Raises ConfigError
    for what there are no devices for.
    """

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
        logs: str,
        workers: int | None,
        start_seconds: float,
        silent_seconds: float,
        deaths: int,
    ) -> None:
        super().__init__(
            make_engine=make_engine,
            start_seconds=start_seconds,
            silent_seconds=silent_seconds,
            deaths=deaths,
        )
        self._fixed = [
            _seat(str(number), Path(logs) / f"{number}.log", environment)
            for number, environment in enumerate(environments_of(workers))
        ]

    @property
    def _seats(self) -> Sequence[Seat[Child]]:
        return self._fixed

    def _tend(self, *, wanted: bool) -> None:
        """Its seats are what the machine has."""

    def _speaking(self, seconds: float) -> list[Seat[Child]]:
        working = [(seat, seat.worker) for seat in self._fixed if seat.worker is not None]
        speaking = wait([worker.link for _, worker in working], seconds)
        return [seat for seat, worker in working if worker.link in speaking or worker.has_ended()]


def _seat(name: str, log: Path, environment: Mapping[str, str]) -> Seat[Child]:
    return Seat(name, log=log, hire=lambda setting: Child(name, setting, log=log, environment=environment))


def environments_of(workers: int | None) -> list[dict[str, str]]:
    """What each worker's environment holds beside the driver's: its GPU, its share of the threads.

    Raises ConfigError where there are no devices for so many.
    """
    gpus = visible_gpus()
    require("backend.workers", workers, workers is None or workers >= 1, "at least 1, or null: one per GPU")
    if workers is None and not gpus:
        raise ConfigError(
            "backend.workers: null means one per GPU, and this machine has none that may be used. Write "
            "backend.workers=2, by which they share the CPU, or backend=inline."
        )
    if gpus and workers is not None and workers > len(gpus):
        raise ConfigError(
            f"backend.workers: {workers} is more than the {len(gpus)} GPUs ({', '.join(gpus)}), and "
            f"each worker takes one. Write backend.workers={len(gpus)}, or null for one per GPU."
        )
    count = workers or len(gpus)
    share = str(max(1, cores() // count))
    threads = {"OMP_NUM_THREADS": share} if "OMP_NUM_THREADS" not in os.environ else {}
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}) for number in range(count)]
