"""How much memory there is, and how much a stretch of work took."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def available_bytes(device: torch.device) -> int:
    """What this process can still take on the device, what torch holds in reserve included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, _left_in_container())


class Meter:
    """The most memory taken since it was made, beyond what was taken then.

    On a CPU pages are counted, which a process keeps for its next allocation: measure the first of
    its kind.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            # 5 resets the high-water mark; only Linux has it.
            with contextlib.suppress(OSError):
                _RESET.write_text("5")
            self._before = psutil.Process().memory_info().rss

    def peak(self) -> int:
        """Bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return max(0, _high_water() - self._before)


def _high_water() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _left_in_container() -> int:
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return limit - used + int(statistics["inactive_file"])
    return 2**63
