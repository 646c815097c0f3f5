"""What runs in a worker: one engine for its whole life, fed by the driver through a socket.

    python -m sweep.backends.worker NAME SOCKET

The driver starts it; the others of a group (`group.py`), their leader. Nothing here imports torch; the engine
that the driver sends does.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from sweep.backends.group import Following, Leading, Speaker, start_followers
from sweep.backends.messages import Cancel, Raised, Setting, Sign, Warned
from sweep.errors import SweepError
from sweep.ranks import this_rank
from sweep.redaction import Printable, printable, redact, remember_words
from sweep.types import Capacity, Done, Engine, Job, Report, Wait

_TRACE_LINES = 6

_logger = logging.getLogger("sweep.backends")


class Driver:
    """The driver as a worker sees it: the source of jobs, and where events go."""

    def __init__(self, link: Connection, *, sign_seconds: float) -> None:
        self._link = link
        self._sign_seconds = sign_seconds
        self._told_at = time.monotonic()
        self._answers: queue.SimpleQueue[Job | Wait | Done] = queue.SimpleQueue()
        self._cancelled: frozenset[str] = frozenset()
        # Said to a driver that may wait for its database: a socket holds some 300 steps, minutes have more.
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._speaker = threading.Thread(target=self._speak, daemon=True)
        self._speaker.start()
        atexit.register(self.finish)
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        """The driver's answer; it keeps it back while there is no job for a worker that has none."""
        self.tell(capacity)
        answer = self._answers.get()
        if isinstance(answer, Job):
            _logger.info("%s begins, from %s to %s examples", answer.id, answer.start, answer.stop)
        return answer

    def cancelled(self) -> frozenset[str]:
        """Asked between steps, it is also the sign that there are steps."""
        if time.monotonic() - self._told_at > self._sign_seconds:
            self.tell(Sign())
        return self._cancelled

    def tell(self, message: object) -> None:
        """Send it, soon and in order; this does not wait for a driver that is busy."""
        if isinstance(message, Report):
            _logger.info("%s ends after %s examples: %s", message.job, message.examples_seen, message.state)
            # The environment of a node holds secrets that the driver does not know.
            message = replace(message, error=redact(message.error))
        self._said.put(pickle.dumps(message))
        self._told_at = time.monotonic()

    def _speak(self) -> None:
        with suppress(OSError):
            while (message := self._said.get()) is not None:
                self._link.send_bytes(message)

    def finish(self) -> None:
        """Return once everything is sent, or nobody hears it any more; nothing can be told after that."""
        self._said.put(None)
        self._speaker.join()

    def _listen(self) -> None:
        try:
            while True:
                message = self._link.recv()
                if isinstance(message, Cancel):
                    self._cancelled = message.jobs
                else:
                    self._answers.put(message)
        except (EOFError, OSError):
            # The driver is gone, however it went. Whatever is half written lies aside and counts for nothing.
            os._exit(0)


class _Warnings(logging.Handler):
    """Passes warnings and errors on to the driver."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(logging.WARNING)
        self._driver = driver

    def emit(self, record: logging.LogRecord) -> None:
        self._driver.tell(Warned(record.name, record.levelno, redact(record.getMessage())))


def work(name: str, link: Connection) -> int:
    """Train what the driver hands out until it says that it is done; the exit code."""
    told = link.recv_bytes()
    rank = this_rank()
    # Before the engine is read, which brings torch.
    followers = start_followers(name, told) if rank.first and rank.count > 1 else {}
    setting: Setting = pickle.loads(told)
    remember_words(setting.secrets)
    source: Speaker
    if rank.first:
        driver = Driver(link, sign_seconds=setting.sign_seconds)
        logging.getLogger().addHandler(_Warnings(driver))
        source = Leading(driver, followers) if followers else driver
    else:
        source = Following(link)
    try:
        engine: Engine = pickle.loads(setting.make_engine)()
        for event in engine.run(source):
            source.tell(event)
        engine.close()
        for follower in followers.values():
            # Their devices are free, then, when this process is gone.
            follower.wait()
    except Exception as error:  # noqa: BLE001 - the worker's boundary: the driver decides what it means
        print(printable(traceback.format_exc()), file=sys.stderr)
        source.tell(_raised(error))
        return 1
    return 0


def _raised(error: Exception) -> Raised:
    trace = "\n".join(traceback.format_exc().rstrip().splitlines()[-_TRACE_LINES:])
    # Classes that others derived may not survive the way.
    known = type(error).__module__ in (SweepError.__module__, OSError.__module__)
    if isinstance(error, SweepError) and known:
        return Raised(type(error)(redact(str(error))), redact(trace))
    return Raised(error if isinstance(error, OSError) and known else None, redact(trace))


if __name__ == "__main__":
    # The driver alone is asked to stop, and tells its workers which jobs to cut short.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("sweep").setLevel(logging.INFO)
    where = f"process {os.getpid()}, of rank {this_rank().number}, on {socket.gethostname()}"
    _logger.info("worker %s is %s", sys.argv[1], where)
    sys.exit(work(sys.argv[1], Connection(int(sys.argv[2]))))
