"""Who drives a sweep: one living process for each experiment's folder, and for each study in a file."""

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
    """Hold the experiment's folder, as `held` does."""
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / _LOCK, str(folder)):
        yield


def living_driver(folder: Path) -> str | None:
    """Which process on this machine holds the experiment's folder, None if none does."""
    return holder(folder / _LOCK)


@contextmanager
def held(file: Path, what: str) -> Iterator[None]:
    """Hold a lock file. Raises StudyError, which says that `what` is in use, if a living process on this
    machine does already, OSError if it can't be written or its file system has no locks.

    The lock belongs to the process: a killed driver gives it up by itself.
    """
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise in_use(what, lock.read().strip()) from error
        lock.truncate(0)
        lock.write(this_process())
        lock.flush()
        yield


def holder(file: Path) -> str | None:
    """Which process on this machine holds the lock file, None if none does."""
    try:
        with file.open() as lock:
            # Held for a moment, so that a driver starting in it would be refused: microseconds.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return file.read_text().strip() or "another process"
    return None


def in_use(what: str, who: str) -> StudyError:
    """The refusal of a second driver."""
    return StudyError(
        f"{what} is in use by {who or 'another process'}. Wait for it, stop it, or start under another name "
        "(name=...)."
    )


def this_process() -> str:
    """As another driver is told of it."""
    return f"process {os.getpid()} on {socket.gethostname()}"
