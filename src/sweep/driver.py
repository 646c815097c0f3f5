"""Who drives a sweep: one living process for each experiment's folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import StudyError

_LOCK = "driver.lock"


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold the experiment's folder. Raises StudyError if a living process on this machine does already,
    OSError if the folder can't be written or its file system has no locks.

    The lock belongs to the process: a killed driver gives it up by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise StudyError(
                f"{folder} is in use by {lock.read().strip() or 'another process'}. Wait for it, stop it, or "
                "start under another name (name=...)."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def living_driver(folder: Path) -> str | None:
    """Which process on this machine holds the experiment's folder, None if none does."""
    try:
        with (folder / _LOCK).open() as lock:
            # Held for a moment, so that a driver starting in it would be refused: microseconds.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (folder / _LOCK).read_text().strip() or "another process"
    return None
