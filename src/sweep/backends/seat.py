"""A worker's seat in the driver: the worker, while there is one, and the jobs that it holds."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from sweep.backends.messages import Cancel
from sweep.types import Capacity, Done, Job, Wait


class End(NamedTuple):
    """How a worker ended, in words; with_node: along with its machine, for which no job is to blame."""

    how: str
    with_node: bool = False


class Worker(Protocol):
    """One worker, from its start to its end. Messages go and come pickled, in their order.

    `send` does not fail: a worker that can't be told anything any more is at its end. `receive` gives the
    next message; it raises BlockingIOError from a worker that stopped in the middle of one, EOFError or
    another OSError once it is gone and all that it said was heard. `end` kills it, after some seconds if
    it is to `wait` for it to exit by itself.
    """

    def send(self, message: bytes) -> None: ...

    def receive(self) -> bytes: ...

    def end(self, *, wait: bool) -> End: ...


W = TypeVar("W", bound=Worker)


class Seat(Generic[W]):
    """One worker after another, with the same name, devices and log.

    jobs: what its worker holds, by id; the first one is kept here until the worker asks, for it
    may take minutes to load. asked: what the worker offered when it asked for a job and has got no
    answer yet. heard: when it last said something, by the monotonic clock. ready: whether it ever
    asked. lone: whether it holds a job that runs with no other beside it. leaving: whether its worker, which
    has no jobs, was told that none follow. place: where its workers run, in words.
    """

    def __init__(
        self, name: str, *, log: Path, hire: Callable[[bytes], W], place: str = "this machine"
    ) -> None:
        self.name = name
        self.log = log
        self.place = place
        self.jobs: dict[str, Job] = {}
        self.asked: Capacity | None = None
        self.first: Job | None = None
        self.ready = False
        self.lone = False
        self.leaving = False
        self.heard = time.monotonic()
        self.worker: W | None = None
        self._hire = hire
        self._cancelled: frozenset[str] = frozenset()

    @property
    def wants(self) -> bool:
        """Whether it would take a job: its worker asked for one, or is yet to load, or to be started."""
        if self.leaving:
            return False
        return self.asked is not None or not (self.ready or self.jobs)

    def start(self, setting: bytes) -> None:
        """A worker, told a pickled `Setting`."""
        self.worker = self._hire(setting)
        self.heard = time.monotonic()

    def take(self, job: Job) -> None:
        """Give the worker a job, once it asks."""
        self.jobs[job.id] = job
        if self.asked is None:
            self.first = job
        else:
            self.answer(job)

    def answer(self, answer: Job | Wait | Done) -> None:
        """Give the worker what it asked for."""
        self.asked, self.leaving = None, isinstance(answer, Done)
        self._send(answer)

    def hear(self) -> object:
        """The next message. Raises EOFError or OSError from a worker that is gone, or hangs in it."""
        assert self.worker is not None
        message: object = pickle.loads(self.worker.receive())
        self.heard = time.monotonic()
        if isinstance(message, Capacity):
            self.asked, self.ready = message, True
            if self.first is not None:
                self.answer(self.first)
                self.first = None
            elif self.leaving:
                self.answer(Done())
        return message

    def cancel(self, jobs: frozenset[str]) -> None:
        """Tell the worker which of its jobs are to stop, if that is news."""
        mine = jobs.intersection(self.jobs)
        if mine != self._cancelled:
            self._cancelled = mine
            self._send(Cancel(mine))

    def empty(self, *, wait: bool) -> End:
        """End the worker and take everything back."""
        assert self.worker is not None
        ended = self.worker.end(wait=wait)
        self.worker = self.first = self.asked = None
        self.jobs, self._cancelled = {}, frozenset()
        self.ready = self.lone = self.leaving = False
        return ended

    def _send(self, message: object) -> None:
        assert self.worker is not None
        self.worker.send(pickle.dumps(message))
