"""A worker that is a group of processes, one for each of its devices, which take the same steps together.

The first leads: it is the worker that the driver knows. It passes on each job and each answer to `cancelled`,
in their order, and tells what it finds. The others follow, and say nothing but what ends the group. They end
with it, by the kernel or their closed sockets; it ends with any of them, as that one did.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import NoReturn, Protocol

from sweep.backends.child import in_words
from sweep.backends.messages import Raised
from sweep.ranks import Rank, this_rank
from sweep.types import Capacity, Done, Job, Report, Source, Wait

# Of <linux/prctl.h>: the signal that a process gets when its parent is gone.
_PR_SET_PDEATHSIG = 1
# Who is cut off by another's death hears of it as an error, and may be first to.
_GRACE_SECONDS = 2.0

_logger = logging.getLogger("sweep.backends")


class Speaker(Source, Protocol):
    """A source of jobs that hears what becomes of them."""

    def tell(self, message: object) -> None: ...


class Sending(Speaker, Protocol):
    """One that has told all of it only once `finish` returns."""

    def finish(self) -> None: ...


class Leading:
    """The driver as the first of a group sees it, and the others with it.

    What one process alone reports as failed may have left the others in the middle of a step, waiting for
    it: the report goes out, and the group ends.
    """

    def __init__(self, driver: Sending, followers: Mapping[Connection, subprocess.Popen[bytes]]) -> None:
        self._driver = driver
        self._followers = followers
        self._count = 1 + len(followers)
        self._job: str | None = None
        self._done = False
        self._died = threading.Event()
        # Of the job's one report, and of this process's last words.
        self._speaking = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        answer = self._driver.next(replace(capacity, devices=self._count))
        if isinstance(answer, Wait):
            return answer
        self._done = isinstance(answer, Done)
        self._job = answer.id if isinstance(answer, Job) else None
        self._pass_on(answer)
        return answer

    def cancelled(self) -> frozenset[str]:
        cancelled = self._driver.cancelled()
        self._pass_on(cancelled)
        return cancelled

    def tell(self, message: object) -> None:
        last = isinstance(message, Raised) or _ends_the_group(message)
        if last and self._died.wait(_GRACE_SECONDS):
            _await_the_end()
        if not isinstance(message, Report):
            self._driver.tell(message)
            return
        with self._speaking:
            self._driver.tell(message)
            self._job = None
            if _ends_the_group(message):
                self._end_now()

    def _pass_on(self, message: object) -> None:
        try:
            for link in self._followers:
                link.send(message)
        except OSError:
            if not self._done:
                _await_the_end()

    def _watch(self) -> None:
        """End with the first that dies, or with what one says, if no death explains it."""
        links, words = dict(self._followers), None
        while links:
            speaking = wait(list(links), _GRACE_SECONDS if words else None)
            if words and not speaking:
                self._end(words)
            for link in speaking:
                assert isinstance(link, Connection)
                try:
                    said = link.recv()
                    words = words or said
                except (EOFError, OSError):
                    follower = links.pop(link)
                    if self._done:
                        continue
                    # One that ended by itself has said why.
                    if words and follower.wait() >= 0:
                        self._end(words)
                    self._end_as(follower)

    def _end(self, words: object) -> NoReturn:
        """Pass on what a follower says, unless it is about a job that was reported, and end."""
        with self._speaking:
            if not isinstance(words, Report) or words.job == self._job:
                self._driver.tell(words)
            self._end_now()

    def _end_as(self, follower: subprocess.Popen[bytes]) -> NoReturn:
        self._died.set()
        code = follower.wait()
        with self._speaking:
            _logger.warning("process %s, one of a group of %s, %s", follower.pid, self._count, in_words(code))
            self._driver.finish()
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(1)

    def _end_now(self) -> NoReturn:
        self._driver.finish()
        os._exit(1)


class Following:
    """The group's leader as the others see it."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._heard: queue.SimpleQueue[Job | Done | frozenset[str]] = queue.SimpleQueue()
        if sys.platform == "linux":
            # One that is stopped, or hangs, does not see its socket close.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self, capacity: Capacity) -> Job | Done:
        answer = self._heard.get()
        assert not isinstance(answer, frozenset), "the leader is in the middle of a job"
        return answer

    def cancelled(self) -> frozenset[str]:
        answer = self._heard.get()
        assert isinstance(answer, frozenset), "the leader is through with the job"
        return answer

    def tell(self, message: object) -> None:
        if isinstance(message, Raised) or _ends_the_group(message):
            self._link.send(message)

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(self._link.recv())
        except (EOFError, OSError):
            os._exit(0)


def start_followers(name: str, setting: bytes) -> dict[Connection, subprocess.Popen[bytes]]:
    """The other processes of this one's group, told the same setting.

    Afterwards this process's environment, too, holds its place and its GPU alone, so not after torch has
    seen them.
    """
    count = this_rank().count
    # It listens from now on, so nobody else can take the port; and nothing outside this machine reaches it.
    listener = socket.create_server(("127.0.0.1", 0), backlog=count)
    first, *others = (Rank(number=n, count=count, port=listener.getsockname()[1]) for n in range(count))
    followers = dict(_follower(name, setting, rank) for rank in others)
    os.environ.update(_environment(replace(first, listener=listener.detach())))
    return followers


def _follower(name: str, setting: bytes, rank: Rank) -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        program = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweep.backends.worker", name, str(theirs.fileno())],
            env=os.environ | _environment(rank),
            pass_fds=[theirs.fileno()],
        )
    link = Connection(ours.detach())
    link.send_bytes(setting)
    return link, program


def _environment(rank: Rank) -> dict[str, str]:
    """The rank's place, its own of the group's GPUs, and no way off this machine."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpu = {"CUDA_VISIBLE_DEVICES": gpus[rank.number]} if len(gpus) == rank.count else {}
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} | gpu | rank.environment


def _ends_the_group(message: object) -> bool:
    return isinstance(message, Report) and message.state in ("failed", "infeasible")


def _await_the_end() -> NoReturn:
    """By the thread that heard of a follower's end."""
    while True:
        threading.Event().wait()
