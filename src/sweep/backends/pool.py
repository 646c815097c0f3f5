"""One worker process for each GPU of this machine, or several on its CPU; a dead one costs no trial."""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from sweep.backends.devices import visible_gpus
from sweep.backends.messages import Raised, Setting, Warned
from sweep.backends.seat import Seat
from sweep.errors import ConfigError, TrainingError
from sweep.schema import require
from sweep.types import Capacity, Done, Engine, Job, Progress, Report, ReportState, Source, Wait

# How often an interruption, a deadline and a source that had nothing are looked at without other cause.
_TICK_SECONDS = 0.2

_logger = logging.getLogger("sweep.backends")


class Pool:
    """Workers that are started when there is a first job for them, and kept for the next run.

    logs: the folder of their logs, one file each. workers: None for one per GPU. A worker has
    `start_seconds` to load the model, and gives a sign of life at least each `silent_seconds` while it
    has a job; else it is ended. The jobs of a worker that ended, however it did, are handed out again as
    they were, to go on from the checkpoint that they began with. A job whose workers ended `deaths` times
    runs with no other beside it, and fails if that one ends as well.

    Only this process speaks with the source. What every worker would raise alike (data, a model, a full
    disk), or before its first job, `run` raises. Raises ConfigError for what there are no devices for.
    """

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
        logs: str,
        workers: int | None,
        start_seconds: float,
        silent_seconds: float,
        deaths: int,
    ) -> None:
        require("backend.start_seconds", start_seconds, start_seconds > 0, "above 0")
        require("backend.silent_seconds", silent_seconds, silent_seconds > 0, "above 0")
        require("backend.deaths", deaths, deaths >= 1, "at least 1")
        self._start_seconds = start_seconds
        self._silent_seconds = silent_seconds
        self._most_deaths = deaths
        self._make_engine = make_engine
        environments = environments_of(workers)
        self._seats = [
            Seat(str(number), log=Path(logs) / f"{number}.log", environment=environment)
            for number, environment in enumerate(environments)
        ]
        self._lost: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()
        self._failed_starts: Counter[str] = Counter()
        self._done = False
        self._asks_again_at = -math.inf

    def run(self, source: Source) -> Iterator[Progress | Report]:
        self._done, self._asks_again_at = False, -math.inf
        try:
            while True:
                self._hand_out(source)
                if self._is_over:
                    return
                yield from self._listen()
                yield from self._cancel(source.cancelled())
        finally:
            # Left early: nobody waits any more for what is out.
            for seat in self._seats:
                seat.alone.clear()
                if seat.jobs:
                    seat.empty(wait=False)
            self._lost.clear()
            self._deaths.clear()

    def close(self) -> None:
        # An answer to what some are only about to ask.
        idle = [seat for seat in self._seats if seat.ready and not seat.jobs]
        for seat in idle:
            seat.answer(Done())
        for seat in self._seats:
            if seat.link is not None:
                seat.empty(wait=seat in idle)

    # Handing out

    @property
    def _is_over(self) -> bool:
        return self._done and not self._lost and not any(seat.jobs or seat.alone for seat in self._seats)

    def _hand_out(self, source: Source) -> None:
        for seat in self._seats:
            while seat.wants:
                job = self._job_for(seat, source)
                if job is not None:
                    if seat.link is None:
                        seat.start(self._setting)
                    seat.take(job)
                elif seat.jobs:
                    seat.answer(Wait())
                else:
                    # Its answer is kept back until there is a job.
                    break

    def _job_for(self, seat: Seat, source: Source) -> Job | None:
        if seat.lone:
            return None
        if seat.alone:
            seat.lone = True
            return seat.alone.popleft()
        if self._lost:
            return self._lost.popleft()
        if self._done or (not seat.jobs and time.monotonic() < self._asks_again_at):
            return None
        answer = source.next(replace(seat.asked or Capacity(), worker=seat.name))
        if isinstance(answer, Job):
            return answer
        self._done = isinstance(answer, Done)
        self._asks_again_at = time.monotonic() + _TICK_SECONDS
        return None

    @property
    def _setting(self) -> bytes:
        # A fourth, so that one late sign is no silence.
        return pickle.dumps(Setting(make_engine=self._make_engine, sign_seconds=self._silent_seconds / 4))

    # Listening

    def _listen(self) -> Iterator[Progress | Report]:
        speaking = wait([seat.link for seat in self._seats if seat.link is not None], _TICK_SECONDS)
        for seat in self._seats:
            if seat.link in speaking:
                yield from self._hear(seat)
        for seat in self._seats:
            if seat.has_exited():
                yield from self._bury(seat)
            elif reason := self._overdue(seat):
                yield from self._bury(seat, reason)

    def _hear(self, seat: Seat) -> Iterator[Progress | Report]:
        try:
            message = seat.hear()
        except BlockingIOError:
            yield from self._bury(seat, "came to a stop in the middle of a message")
            return
        except (EOFError, OSError):
            yield from self._bury(seat)
            return
        match message:
            case Capacity():
                del self._failed_starts[seat.name]
            case Progress():
                yield message
            case Report():
                seat.jobs.pop(message.job, None)
                del self._deaths[message.job]
                seat.lone = False
                self._asks_again_at = -math.inf
                yield message
            case Warned():
                logging.getLogger(message.logger).log(message.level, "worker %s: %s", seat.name, message.text)
            case Raised():
                yield from self._mourn(seat, message)

    def _overdue(self, seat: Seat) -> str | None:
        """Why a worker that says nothing is given up; it is not while it waits for a job."""
        if seat.link is None or seat.asked is not None or seat.link.poll():
            # The last: it spoke, but this process did not listen, for it waited for its database.
            return None
        silent = time.monotonic() - seat.heard
        if not seat.ready and silent > self._start_seconds:
            return f"had not loaded after {self._start_seconds:g} s (backend.start_seconds)"
        if seat.ready and silent > self._silent_seconds:
            return f"gave no sign of life for {self._silent_seconds:g} s (backend.silent_seconds)"
        return None

    def _cancel(self, cancelled: frozenset[str]) -> Iterator[Report]:
        """Pass on what is to stop; what no worker has begun stops here."""
        for seat in self._seats:
            if (job := seat.first) is not None and job.id in cancelled:
                seat.first, seat.lone = None, False
                del seat.jobs[job.id]
                yield _report(job, "stopped", "cancelled")
            seat.cancel(cancelled)
        for waiting in (self._lost, *(seat.alone for seat in self._seats)):
            for job in [job for job in waiting if job.id in cancelled]:
                waiting.remove(job)
                yield _report(job, "stopped", "cancelled")

    # When a worker ends

    def _mourn(self, seat: Seat, raised: Raised) -> Iterator[Report]:
        """What the engine raised: the driver's own error, or the end of that worker."""
        if raised.error is not None:
            raise raised.error
        if not seat.ready:
            raise TrainingError(
                f"worker {seat.name} could not start. Mend the cause; {seat.log} holds more:\n{raised.trace}"
            )
        yield from self._bury(seat, f"raised what no trial caused by itself, {raised.trace.splitlines()[-1]}")

    def _bury(self, seat: Seat, reason: str | None = None) -> Iterator[Report]:
        """End a worker and hand its jobs out again. reason: None if it ended by itself."""
        jobs, ready, lone = list(seat.jobs.values()), seat.ready, seat.lone
        ended = seat.empty(wait=reason is None)
        reason = f"worker {seat.name} {reason or ended}; its log is {seat.log}"
        held = ", ".join(f"trial {job.trial.id}" for job in jobs) or "no trial"
        _logger.warning("%s. It held %s.", reason, held)
        if not ready:
            self._failed_starts[seat.name] += 1
            if self._failed_starts[seat.name] > self._most_deaths:
                raise TrainingError(
                    f"{reason}. That was start {self._failed_starts[seat.name]} in a row that came to "
                    "nothing. If memory is short, lower backend.workers."
                )
            (seat.alone if lone else self._lost).extend(jobs)
            return
        for job in jobs:
            self._deaths[job.id] += 1
            if lone:
                times = self._deaths.pop(job.id)
                alone = f"{times} workers ended while they trained it, the last with nothing else to do"
                yield _report(job, "failed", f"{alone}: {reason}")
            elif self._deaths[job.id] >= self._most_deaths:
                seat.alone.append(job)
            else:
                self._lost.append(job)


def environments_of(workers: int | None) -> list[dict[str, str]]:
    """What each worker's environment holds beside the driver's: its GPU, its share of the threads.

    Raises ConfigError where there are no devices for so many.
    """
    gpus = visible_gpus()
    require("backend.workers", workers, workers is None or workers >= 1, "at least 1, or null: one per GPU")
    if workers is None and not gpus:
        raise ConfigError(
            "backend.workers: null means one per GPU, and this machine has none that may be used. Write "
            "backend.workers=2, by which they share the CPU, or backend=inline."
        )
    if gpus and workers is not None and workers > len(gpus):
        raise ConfigError(
            f"backend.workers: {workers} is more than the {len(gpus)} GPUs ({', '.join(gpus)}), and "
            f"each worker takes one. Write backend.workers={len(gpus)}, or null for one per GPU."
        )
    count = workers or len(gpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // count))} if "OMP_NUM_THREADS" not in os.environ else {}
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {}) for number in range(count)]


def _report(job: Job, state: ReportState, error: str) -> Report:
    """Of a job that no worker answers for: its trial stands where it stood."""
    return Report(
        job=job.id,
        trial=job.trial.id,
        attempt=job.attempt,
        examples_seen=job.start,
        state=state,
        checkpoint=job.checkpoint if state == "stopped" else None,
        ended_ms=time.time_ns() // 1_000_000,
        error=error,
    )
