"""Which GPUs there are, and who gets which.

Asked of their driver: CUDA, once initialised, would hold memory of the first one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from itertools import takewhile

from sweep.errors import ConfigError
from sweep.ranks import RANKS
from sweep.schema import require


def visible_gpus() -> tuple[str, ...]:
    """Each as CUDA_VISIBLE_DEVICES names it; those that the variable leaves visible, where it is set."""
    installed = _installed()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return tuple(map(str, range(installed)))
    # CUDA too takes no more from the first one on that is none.
    names = map(str.strip, chosen.split(","))
    return tuple(takewhile(lambda name: _is_one(name, installed), names))


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environments_of(workers: int | None, each: int = 1) -> list[dict[str, str]]:
    """What each worker's environment holds beside the driver's: its GPUs, its share of the threads.

    each: devices of a worker. Raises ConfigError where there are no devices for so many.
    """
    gpus = visible_gpus()
    require("backend.workers", workers, workers is None or workers >= 1, "at least 1, or null: one per GPU")
    require("backend.devices_per_worker", each, each >= 1, "at least 1")
    if workers is None and not gpus:
        raise ConfigError(
            "backend.workers: null means one per GPU, and this machine has none that may be used. Write "
            "backend.workers=2, by which they share the CPU, or backend=inline."
        )
    if gpus:
        _check_fit(workers, each, gpus)
    count = workers or len(gpus) // each
    threads = str(max(1, cores() // (count * each)))
    shared = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}
    if each > 1:
        shared[RANKS] = str(each)
    groups = [",".join(gpus[number * each : (number + 1) * each]) for number in range(count)]
    return [shared | ({"CUDA_VISIBLE_DEVICES": group} if gpus else {}) for group in groups]


def _check_fit(workers: int | None, each: int, gpus: Sequence[str]) -> None:
    """Nothing, or ConfigError: so many workers, of so many GPUs each, are too many, or leave some idle."""
    there = f"the {len(gpus)} {'GPU' if len(gpus) == 1 else 'GPUs'} ({', '.join(gpus)})"
    if each > len(gpus):
        raise ConfigError(
            f"backend.devices_per_worker: {each} is more than {there}, and a worker's devices are all "
            f"in this machine. Write backend.devices_per_worker={len(gpus)} or less."
        )
    most = len(gpus) // each
    if workers is None and len(gpus) % each:
        raise ConfigError(
            f"backend.devices_per_worker: {there} are no multiple of {each}, so {len(gpus) % each} would be "
            f"idle. Write a number that divides {len(gpus)}, or backend.workers={most} if they shall be."
        )
    if workers is not None and workers > most:
        takes = "one" if each == 1 else f"{each} (backend.devices_per_worker)"
        null = "" if len(gpus) % each else f", or null for {'one per GPU' if each == 1 else 'all of them'}"
        raise ConfigError(
            f"backend.workers: {workers} is more than {there} allow, and each worker takes {takes}. Write "
            f"backend.workers={most}{null}."
        )


def _is_one(name: str, installed: int) -> bool:
    if name.isdecimal():
        return int(name) < installed
    return installed > 0 and name.startswith(("GPU-", "MIG-"))


def _installed() -> int:
    """On this machine, or in this container; 0 where NVIDIA's management library is absent or fails."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    if library.nvmlInit_v2():
        return 0
    count = ctypes.c_uint()
    failed = library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    library.nvmlShutdown()
    return 0 if failed else count.value
