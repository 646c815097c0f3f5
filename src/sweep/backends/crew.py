"""The rules by which jobs go to workers, wherever these run; a dead one costs no trial."""

from __future__ import annotations

import logging
import math
import pickle
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sweep.backends.messages import Raised, Setting, Warned
from sweep.backends.seat import Seat
from sweep.errors import TrainingError
from sweep.redaction import known_in
from sweep.schema import require
from sweep.types import Capacity, Done, Engine, Job, Progress, Report, ReportState, Source, Wait

# How often an interruption, a deadline and a source that had nothing are looked at without other cause.
TICK_SECONDS = 0.2

_logger = logging.getLogger("sweep.backends")


class Crew(ABC):
    """Workers that are started when there is a first job for them, and kept for the next run.

    A worker has `start_seconds` to load the model, and gives a sign of life at least each
    `silent_seconds` while it has a job; else it is ended. The jobs of a worker that ended, however it did,
    are handed out again as they were, to go on from the checkpoint that they began with. A job whose
    workers ended `deaths` times, none along with its machine, runs with no other beside it, and fails if
    that one ends as well.

    Only this process, and of it the thread that runs it, speaks with the source. What every worker would
    raise alike (data, a model, a full disk) `run` raises; so too what one raises before it is ready, while
    none ever was. Where others were, a warning says so, and no worker is started in that place any more;
    `run` raises it if there is no other.
    """

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
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
        self._lost: deque[Job] = deque()
        # To be trained with no other beside them.
        self._alone: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()
        self._failed_starts: Counter[tuple[str, str]] = Counter()
        self._was_ready = False
        self._done = False
        self._had_more = True
        self._asks_again_at = -math.inf

    @property
    @abstractmethod
    def _seats(self) -> Sequence[Seat[Any]]:
        """Where a worker is or could be started at once."""

    @abstractmethod
    def _speaking(self, seconds: float) -> list[Seat[Any]]:
        """Those whose workers said something or ended; waits so long for the first."""

    @abstractmethod
    def _tend(self, *, wanted: bool) -> None:
        """Take in, or let go, places for workers. wanted: whether one more would find a job."""

    @abstractmethod
    def _give_up(self, seat: Seat[Any]) -> str:
        """Start none where that one could not start, for ever or for a while; which, unless it was told."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        self._done, self._had_more, self._asks_again_at = False, True, -math.inf
        try:
            while True:
                self._hand_out(source)
                if self._is_over:
                    return
                self._tend(wanted=self._wants_more)
                yield from self._listen()
                yield from self._cancel(source.cancelled())
        finally:
            # Left early: nobody waits any more for what is out.
            for seat in self._seats:
                if seat.jobs:
                    seat.empty(wait=False)
            for gone in (self._lost, self._alone, self._deaths):
                gone.clear()

    def close(self) -> None:
        # An answer to what some are only about to ask.
        idle = [seat for seat in self._seats if seat.ready and not seat.jobs]
        for seat in idle:
            seat.answer(Done())
        for seat in self._seats:
            if seat.worker is not None:
                seat.empty(wait=seat in idle)

    # Handing out

    @property
    def _is_over(self) -> bool:
        out = any(seat.jobs for seat in self._seats)
        return self._done and not (out or self._lost or self._alone)

    @property
    def _wants_more(self) -> bool:
        """Whether there is more to do than all seats take, as far as the source's last answer tells."""
        waiting = self._lost or self._alone or (self._had_more and not self._done)
        return bool(waiting) and not any(seat.wants for seat in self._seats)

    def _hand_out(self, source: Source) -> None:
        drained = self._drained()
        for seat in self._seats:
            while seat.wants:
                job = None if seat is drained else self._job_for(seat, source)
                if job is not None:
                    if seat.worker is None:
                        seat.start(self._setting)
                    seat.take(job)
                elif seat.jobs:
                    seat.answer(Wait())
                else:
                    # Its answer is kept back until there is a job.
                    break
        if not (self._staying or self._lost or self._alone) and (job := self._ask(source, Capacity())):
            self._lost.append(job)

    def _drained(self) -> Seat[Any] | None:
        """Who gets nothing more beside its jobs, to be free for one that must run alone.

        An engine with many slots is never empty by itself. Whoever holds the least is it, so the least only
        becomes less.
        """
        if not self._alone or any(seat.lone or not seat.jobs for seat in self._staying):
            return None
        return min(self._staying, key=lambda seat: len(seat.jobs), default=None)

    @property
    def _staying(self) -> Sequence[Seat[Any]]:
        return [seat for seat in self._seats if not seat.leaving]

    def _job_for(self, seat: Seat[Any], source: Source) -> Job | None:
        if seat.lone:
            return None
        if self._alone and not seat.jobs:
            seat.lone = True
            return self._alone.popleft()
        if self._lost:
            return self._lost.popleft()
        return self._ask(source, replace(seat.asked or Capacity(), worker=seat.name), idle=not seat.jobs)

    def _ask(self, source: Source, capacity: Capacity, *, idle: bool = True) -> Job | None:
        if self._done or (idle and time.monotonic() < self._asks_again_at):
            return None
        answer = source.next(capacity)
        self._had_more = isinstance(answer, Job)
        if isinstance(answer, Job):
            return answer
        self._done = isinstance(answer, Done)
        self._asks_again_at = time.monotonic() + TICK_SECONDS
        return None

    @property
    def _setting(self) -> bytes:
        make_engine = pickle.dumps(self._make_engine)
        return pickle.dumps(
            Setting(
                make_engine=make_engine,
                secrets=known_in(make_engine),
                # A fourth, so that one late sign is no silence.
                sign_seconds=self._silent_seconds / 4,
            )
        )

    # Listening

    def _listen(self) -> Iterator[Progress | Report]:
        for seat in self._speaking(TICK_SECONDS):
            yield from self._hear(seat)
        for seat in self._seats:
            # One may have spoken while this process did not listen, for it waited for its database.
            if (reason := self._overdue(seat)) and seat not in self._speaking(0):
                yield from self._bury(seat, reason)

    def _hear(self, seat: Seat[Any]) -> Iterator[Progress | Report]:
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
                del self._failed_starts[seat.name, seat.place]
                self._was_ready = True
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

    def _overdue(self, seat: Seat[Any]) -> str | None:
        """Why a worker that says nothing is given up; it is not while it waits for a job."""
        if seat.worker is None or seat.asked is not None:
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
        for waiting in (self._lost, self._alone):
            for job in [job for job in waiting if job.id in cancelled]:
                waiting.remove(job)
                yield _report(job, "stopped", "cancelled")

    # When a worker ends

    def _mourn(self, seat: Seat[Any], raised: Raised) -> Iterator[Report]:
        """What the engine raised: the driver's own error, the end of that worker, or of its place."""
        if seat.leaving:
            seat.empty(wait=True)
            return
        if seat.ready:
            if raised.error is not None:
                raise raised.error
            last = raised.trace.splitlines()[-1]
            yield from self._bury(seat, f"raised what no trial caused by itself, {last}")
            return
        error = raised.error or TrainingError(
            f"worker {seat.name} could not start. Mend the cause; {seat.log} holds more:\n{raised.trace}"
        )
        (self._alone if seat.lone else self._lost).extend(seat.jobs.values())
        seat.empty(wait=True)
        self._do_without(seat, error)

    def _do_without(self, seat: Seat[Any], error: Exception) -> None:
        """Go on with the others; raises the error where there are none, or nobody ever began."""
        if not self._was_ready or not self._has_others(seat):
            raise error
        if follows := self._give_up(seat):
            _logger.warning(
                "Worker %s could not start on %s; %s, and the others go on. %s",
                seat.name,
                seat.place,
                follows,
                error,
            )

    def _has_others(self, seat: Seat[Any]) -> bool:
        """Whether there is another place where a worker is or could be."""
        return any(other is not seat for other in self._staying)

    def _bury(self, seat: Seat[Any], reason: str | None = None) -> Iterator[Report]:
        """End a worker and hand its jobs out again. reason: None if it ended by itself.

        One that is leaving had none, and was asked to.
        """
        if seat.leaving:
            seat.empty(wait=reason is None)
            return
        jobs, ready, lone = list(seat.jobs.values()), seat.ready, seat.lone
        ended = seat.empty(wait=reason is None)
        reason = f"worker {seat.name} {reason or ended.how}; its log is {seat.log}"
        held = ", ".join(f"trial {job.trial.id}" for job in jobs) or "no trial"
        _logger.warning("%s. It held %s.", reason, held)
        if ended.with_node or not ready:
            (self._alone if lone else self._lost).extend(jobs)
            if not ended.with_node:
                self._count_failed_start(seat, reason)
            return
        for job in jobs:
            self._deaths[job.id] += 1
            if lone:
                times = self._deaths.pop(job.id)
                alone = f"{times} workers ended while they trained it, the last with nothing else to do"
                yield _report(job, "failed", f"{alone}: {reason}")
            elif self._deaths[job.id] >= self._most_deaths:
                self._alone.append(job)
            else:
                self._lost.append(job)

    def _count_failed_start(self, seat: Seat[Any], reason: str) -> None:
        self._failed_starts[seat.name, seat.place] += 1
        if (starts := self._failed_starts[seat.name, seat.place]) > self._most_deaths:
            error = TrainingError(
                f"{reason}. That was start {starts} in a row that came to nothing. If memory is short, lower "
                "backend.workers."
            )
            self._do_without(seat, error)


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
