"""Which devices there are. GPUs are asked of their driver: CUDA, once initialised, would hold memory."""

from __future__ import annotations

import ctypes
import os
from itertools import takewhile


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
