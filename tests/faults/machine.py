"""What of this machine is made scarce: memory of a control group, room of a file system, the time of day."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounts import mounted, resize

_GROUPS = Path("/sys/fs/cgroup")


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
        resize(self.folder, megabytes * 2**20)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted at the folder, which is made. Skips where that is not allowed."""
    with mounted(folder, megabytes * 2**20):
        yield SmallDisk(folder)


class Clock:
    """The time of day of processes with this environment; how long things take is told as ever.

    Not by libfaketime: its 0.9.10 refuses every `clock_nanosleep` where it leaves the monotonic clock alone.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler: apt-get install gcc")
        library, source = folder / "clock.so", Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("q", 0))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}

    def set(self, *, hours: int) -> None:
        """Off by so many, from now on."""
        with self._offset.open("r+b") as offset:
            offset.write(struct.pack("q", hours * 3600))


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
