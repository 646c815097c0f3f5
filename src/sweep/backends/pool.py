"""One worker for each GPU of this machine, or several; several on its CPU; a dead one costs no trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from sweep.backends.child import Child
from sweep.backends.crew import Crew
from sweep.backends.devices import environments_of
from sweep.backends.seat import Seat
from sweep.types import Engine


class Pool(Crew):
    """A crew on this machine.

    logs: the folder of the workers' logs, one file each. workers: None for as many as there are GPUs for;
    each takes `devices_per_worker` of them, or is as many processes on the CPU (`group.py`). Raises
    ConfigError for what there are no devices for.
    """

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
        super().__init__(
            make_engine=make_engine,
            start_seconds=start_seconds,
            silent_seconds=silent_seconds,
            deaths=deaths,
        )
        self._fixed = [
            _seat(str(number), Path(logs) / f"{number}.log", environment)
            for number, environment in enumerate(environments_of(workers, devices_per_worker))
        ]
        self._each = devices_per_worker

    @property
    def devices(self) -> Sequence[float]:
        return (self._each,) * len(self._fixed)

    @property
    def _seats(self) -> Sequence[Seat[Child]]:
        return self._fixed

    def _tend(self, *, wanted: bool) -> None:
        """Its seats are what the machine has."""

    def _give_up(self, seat: Seat[Child]) -> str:
        self._fixed = [other for other in self._fixed if other is not seat]
        return "no other is started in its place"

    def _speaking(self, seconds: float) -> list[Seat[Child]]:
        working = [(seat, seat.worker) for seat in self._fixed if seat.worker is not None]
        speaking = wait([worker.link for _, worker in working], seconds)
        return [seat for seat, worker in working if worker.link in speaking or worker.has_ended()]


def _seat(name: str, log: Path, environment: Mapping[str, str]) -> Seat[Child]:
    return Seat(name, log=log, hire=lambda setting: Child(name, setting, log=log, environment=environment))
