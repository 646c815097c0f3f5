"""What of this machine is made scarce: memory of a control group, room of a file system, the time of day."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_GROUPS = Path("/sys/fs/cgroup")
_FAKETIME = "libfaketimeMT.so.1"


@contextmanager
def memory_group(name: str, megabytes: int) -> Iterator[Path]:
    """A control group, of either version, with so much memory. Skips where none can be made."""
    unified = "memory" in _read(_GROUPS / "cgroup.controllers").split()
    root = _GROUPS if unified else _GROUPS / "memory"
    group = root / f"sweep-{name}-{os.getpid()}"
    try:
        if unified:
            (root / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    try:
        limit = "memory.max" if unified else "memory.limit_in_bytes"
        (group / limit).write_text(str(megabytes * 2**20))
        yield group
    finally:
        group.rmdir()


def kills(group: Path) -> int:
    """How many processes of the group the kernel has killed for want of memory."""
    told = _read(group / "memory.events") + _read(group / "memory.oom_control")
    (killed,) = [line.split()[1] for line in told.splitlines() if line.startswith("oom_kill ")]
    return int(killed)


class SmallDisk:
    """A file system of its own at `folder`, in memory. Needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave nothing free."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"\0" * 2**16):
                    pass
            except OSError:
                return

    def enlarge(self, megabytes: int) -> None:
        """What fills it stays where it is."""
        _mount("-o", f"remount,size={megabytes}m", str(self.folder))


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted at the folder, which is made. Skips where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    try:
        _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error.stderr}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Clock:
    """The time of day of processes with this environment; how long things take is told as ever."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib").glob(f"**/faketime/{_FAKETIME}"))
        if not found:
            pytest.skip(f"{_FAKETIME} is not there: apt-get install faketime")
        self._shift = folder / "shift"
        self.set(hours=0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._shift),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, *, hours: int) -> None:
        """Off by so many, from now on."""
        aside = self._shift.with_suffix(".new")
        aside.write_text(f"{hours:+d}h\n")
        aside.replace(self._shift)


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True, text=True)


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
