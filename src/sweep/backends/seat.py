"""A worker's seat in the driver: its process, while there is one, and the jobs that it holds."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from sweep.backends.messages import Cancel
from sweep.types import Capacity, Done, Job, Wait

# A message that has begun comes, or goes, whole within this time, or its worker hangs.
_MESSAGE_SECONDS = 60
_EXIT_SECONDS = 5.0


class Seat:
    """One worker after another, with the same name, devices and log.

    jobs: what its worker holds, by id; the first one is kept here until the worker asks, for it
    may take minutes to load. alone: jobs to be trained with no other beside them. asked: what
    the worker offered when it asked for a job and has got no answer yet. ready: whether it ever
    asked. lone: whether it holds one of `alone`.
    """

    def __init__(self, name: str, *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.jobs: dict[str, Job] = {}
        self.alone: deque[Job] = deque()
        self.asked: Capacity | None = None
        self.first: Job | None = None
        self.ready = False
        self.lone = False
        self.heard = 0.0
        self.link: Connection | None = None
        self._environment = environment
        self._program: subprocess.Popen[bytes] | None = None
        self._cancelled: frozenset[str] = frozenset()

    @property
    def wants(self) -> bool:
        """Whether it would take a job: its worker asked for one, or is yet to load, or to be started."""
        return self.asked is not None or not (self.ready or self.jobs)

    def start(self, setting: bytes) -> None:
        """A worker, told a pickled `Setting`."""
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _MESSAGE_SECONDS, 0))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A group of its own: what a terminal sends to the driver's group does not reach it, and the kernel
        # wakes a stopped one when the driver is gone.
        with self.log.open("ab") as log, theirs:
            self._program = subprocess.Popen(
                # -P: where its driver did not look, in the working directory above all, it must not either.
                [sys.executable, "-P", "-m", "sweep.backends.worker", self.name, str(theirs.fileno())],
                env={**os.environ, **self._environment, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.link = Connection(ours.detach())
        self.heard = time.monotonic()
        self._send_bytes(setting)

    def take(self, job: Job) -> None:
        """Give the worker a job, once it asks."""
        self.jobs[job.id] = job
        if self.asked is None:
            self.first = job
        else:
            self.answer(job)

    def answer(self, answer: Job | Wait | Done) -> None:
        """Give the worker what it asked for."""
        self.asked = None
        self._send(answer)

    def hear(self) -> object:
        """The next message. Raises EOFError or OSError from a worker that is gone, or hangs in it."""
        assert self.link is not None
        message = self.link.recv()
        self.heard = time.monotonic()
        if isinstance(message, Capacity):
            self.asked, self.ready = message, True
            if self.first is not None:
                self.answer(self.first)
                self.first = None
        return message

    def cancel(self, jobs: frozenset[str]) -> None:
        """Tell the worker which of its jobs are to stop, if that is news."""
        mine = jobs.intersection(self.jobs)
        if mine != self._cancelled:
            self._cancelled = mine
            self._send(Cancel(mine))

    def has_exited(self) -> bool:
        """Whether the worker is gone and nothing of what it said is left to hear."""
        gone = self._program is not None and self._program.poll() is not None
        return gone and self.link is not None and not self.link.poll()

    def empty(self, *, wait: bool) -> str:
        """End the worker and take everything back but `alone`; in words, how it ended.

        wait: for it to exit by itself, for a few seconds.
        """
        assert self.link is not None
        code = self._exit_code() if wait else None
        self._kill()
        self.link.close()
        code = self._exit_code() if code is None else code
        self.link = self._program = self.first = self.asked = None
        self.jobs, self._cancelled = {}, frozenset()
        self.ready = self.lone = False
        return in_words(code)

    def _exit_code(self) -> int | None:
        assert self._program is not None
        try:
            return self._program.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _send(self, message: object) -> None:
        self._send_bytes(pickle.dumps(message))

    def _send_bytes(self, message: bytes) -> None:
        assert self.link is not None
        try:
            self.link.send_bytes(message)
        except OSError:
            # It is gone, or hangs and heard half of it: what it still says counts, then it is at its end.
            self._kill()

    def _kill(self) -> None:
        """End the worker, and what it has started; once it is gone that ends by itself."""
        assert self._program is not None
        if self._program.poll() is None:
            os.killpg(self._program.pid, signal.SIGKILL)


def in_words(code: int | None) -> str:
    """How a process ended, or that it does not."""
    if code is None:
        return "does not end, held by the kernel"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), which is often the system's doing where memory runs out"
    return f"was ended by {name}"
