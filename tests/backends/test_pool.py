"""Workers die, hang and are told to stop; no trial is lost, none counted twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweep.backends.pool import Pool
from sweep.types import Backend, Engine
from tests.contracts.backend import BackendContract


class TestPool(BackendContract):
    engines = 2

    @staticmethod
    def make_backend(make_engine: Callable[[], Engine], folder: Path) -> Backend:
        return pool(make_engine, folder)


def pool(
    make_engine: Callable[[], Engine],
    folder: Path,
    *,
    workers: int = 2,
    devices_per_worker: int = 1,
    start_seconds: float = 120,
    silent_seconds: float = 60,
    deaths: int = 2,
) -> Pool:
    return Pool(
        make_engine=make_engine,
        logs=str(folder / "workers"),
        workers=workers,
        devices_per_worker=devices_per_worker,
        start_seconds=start_seconds,
        silent_seconds=silent_seconds,
        deaths=deaths,
    )
