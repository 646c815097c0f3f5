"""Engines on closed-form curves that tell which process they are in, and that take it down with them."""

from __future__ import annotations

import logging
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from sweep.backends import group
from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic
from sweep.errors import ModelError
from sweep.ranks import this_rank
from sweep.types import Capacity, Done, Job, Progress, Report, Source, Wait

NOISE = 0.01


class Noted(Synthetic):
    """Notes in the folder that holds the checkpoints: each engine made, and each job that it begins."""

    def __init__(self, *, inputs: Inputs) -> None:
        super().__init__(inputs=inputs, noise=NOISE)
        self.folder = inputs.folder.parent
        self.note("engines", f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")

    def close(self) -> None:
        self.note("closed", str(os.getpid()))

    def note(self, kind: str, text: str) -> int:
        """How often such a thing was noted before."""
        before = noted(self.folder, kind)
        for name, line in ((kind, text), (f"{kind}.seconds", f"{time.monotonic()}")):
            with (self.folder / name).open("a") as notes:
                notes.write(f"{line}\n")
        return len(before)

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        self.note("begun", f"{job.id} {os.getpid()}")
        yield from super()._train(job, source)


def noted(folder: Path, kind: str) -> list[str]:
    """What engines noted there, each line."""
    notes = folder / kind
    return notes.read_text().splitlines() if notes.is_file() else []


def seconds_to_begin_again(folder: Path, trial: str, since: float | None = None) -> float:
    """Until a worker began the trial's job again. since: by `time.monotonic`; None for the first death."""
    lost = float(noted(folder, "deaths.seconds")[0]) if since is None else since
    begun = zip(noted(folder, "begun"), map(float, noted(folder, "begun.seconds")), strict=True)
    return next(at for line, at in begun if line.startswith(f"{trial}@") and at > lost) - lost


class Slow(Noted):
    """Takes two milliseconds for a step."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            time.sleep(0.002)
            yield event


class Lingering(Slow):
    """Closes once there is a file `go`."""

    def close(self) -> None:
        self.note("closing", str(os.getpid()))
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        super().close()


class Lasting(Noted):
    """Trains trial 1 until there is a file `go`."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            while isinstance(event, Report) and job.trial.id == "1" and not (self.folder / "go").exists():
                source.cancelled()
                time.sleep(0.01)
            yield event


class Deadly(Noted):
    """Kills its own process so many times, at one trial.

    when: "begun", before it told anything; "step", after its first step; "saved", before it reports.
    """

    def __init__(self, *, inputs: Inputs, trial: str, when: str, times: int) -> None:
        super().__init__(inputs=inputs)
        self.trial, self.when, self.times = trial, when, times

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for steps, event in enumerate(super()._train(job, source)):
            now = "saved" if isinstance(event, Report) else "begun" if steps == 0 else "step"
            if job.trial.id == self.trial and now == self.when:
                self.die(job.trial.id)
            yield event

    def die(self, held: str) -> None:
        if self.note("deaths", held) < self.times:
            os.kill(os.getpid(), signal.SIGKILL)


class Fading(Deadly):
    """Lacks a library once its process was killed."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        if noted(self.folder, "deaths"):
            raise ImportError("libcuda is missing")
        yield from super().run(source)


class Together(Deadly):
    """Holds three jobs at once and takes a step of each in turn; one trial kills it on its first step."""

    def __init__(self, *, inputs: Inputs, trial: str) -> None:
        super().__init__(inputs=inputs, trial=trial, when="never", times=sys.maxsize)

    def run(self, source: Source) -> Iterator[Progress | Report]:
        held: dict[str, tuple[Job, Iterator[Progress | Report]]] = {}
        done = False
        while held or not done:
            while not done and len(held) < 3:
                answer = source.next(Capacity(free_slots=3 - len(held)))
                if isinstance(answer, Job):
                    self.note("beside", f"{answer.trial.id} {len(held)}")
                    held[answer.id] = (answer, self._train(answer, source))
                    continue
                done = isinstance(answer, Done)
                if isinstance(answer, Wait):
                    break
            for job, steps in list(held.values()):
                if self.is_deadly(job):
                    self.die(" ".join(sorted(other.trial.id for other, _ in held.values())))
                event = next(steps)
                if isinstance(event, Report):
                    del held[job.id]
                yield event

    def is_deadly(self, job: Job) -> bool:
        return job.trial.id == self.trial


class Vanishing(Together):
    """Worker 1 is killed with its jobs, once, and then can't be started again; the other waits for that."""

    def __init__(self, *, inputs: Inputs) -> None:
        super().__init__(inputs=inputs, trial="none")

    def run(self, source: Source) -> Iterator[Progress | Report]:
        if sys.argv[1] == "1" and noted(self.folder, "deaths"):
            self.note("gone", str(os.getpid()))
            raise ImportError("libcuda is missing")
        yield from super().run(source)

    def is_deadly(self, job: Job) -> bool:
        if sys.argv[1] == "1":
            return True
        # Until the driver has heard of it, and cleared away what was left.
        while not (gone := noted(self.folder, "gone")) or psutil.pid_exists(int(gone[0])):
            time.sleep(0.01)
        return False


class Stumbling(Noted):
    """Raises once, in the middle of a job, what no trial caused."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            yield event
            if job.trial.id == "1" and self.note("raises", job.id) == 0:
                raise RuntimeError("the device was lost")


class Halting(Noted):
    """Comes to a stop, once, in the middle of what it tells the driver."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            if job.trial.id == "1" and self.note("halts", job.id) == 0:
                # The length of a message, as multiprocessing writes it, and less than that.
                os.write(int(sys.argv[2]), struct.pack("!i", 1000) + b"half")
                signal.pause()
            yield event


class Talking(Noted):
    """Prints, and warns."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        print("a line for the log")
        logging.getLogger("sweep.engines").warning("Trial %s is odd.", job.trial.id)
        yield from super()._train(job, source)


class Absent(Noted):
    """Finds no model."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        raise ModelError("model.path=/nowhere: no such folder.")


class Broken(Noted):
    """Lacks a library."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        raise ImportError("libcuda is missing")


class Unable(Slow):
    """In a worker of this name, or on a node whose environment says so, can't load once others train."""

    def __init__(self, *, inputs: Inputs, worker: str = "", error: Exception) -> None:
        super().__init__(inputs=inputs)
        self.worker, self.error = worker, error

    def run(self, source: Source) -> Iterator[Progress | Report]:
        if sys.argv[1] == self.worker or "UNABLE" in os.environ:
            while not noted(self.folder, "begun"):
                time.sleep(0.01)
            self.note("unable", sys.argv[1])
            raise self.error
        yield from super().run(source)


class Stillborn(Noted):
    """Is killed while it loads."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Hanging(Noted):
    """Never comes to its first question."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        signal.pause()
        raise AssertionError


class Ranked(Slow):
    """Of a group: keeps checkpoints of its own, and notes its rank, its GPU and where a job ends.

    Its processes wait for each other once, as those that share a model do.
    """

    def __init__(self, *, inputs: Inputs) -> None:
        place = this_rank()
        self.rank = place.number
        folder = inputs.folder if place.first else inputs.folder.with_name(f"of_rank{place.number}")
        super().__init__(inputs=replace(inputs, folder=folder))
        self.note("ranks", f"{os.getpid()} {self.rank} {os.environ.get('CUDA_VISIBLE_DEVICES')} {place.port}")
        while [line.split()[3] for line in noted(self.folder, "ranks")].count(str(place.port)) < place.count:
            time.sleep(0.01)

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            if isinstance(event, Report):
                self.note("ended", f"{job.id} {event.state} {event.examples_seen}")
            yield event


class Confiding(Ranked):
    """Tells a word that it was given: its log and the driver, by a warning, a report and an error."""

    def __init__(self, *, inputs: Inputs, word: str) -> None:
        self.word = word
        logging.getLogger("sweep.engines").warning("rank %s was given %s", this_rank().number, word)
        super().__init__(inputs=inputs)

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        self.note("begun", f"{job.id} {os.getpid()}")
        if job.trial.id == "last":
            raise LookupError(f"no access with {self.word}")
        yield self._report(job, state="stopped", examples=job.start, error=f"asked with {self.word}")


class DeadlyRank(Ranked):
    """One rank's process is killed, once, in the middle of trial 5; the others wait for it there."""

    def __init__(self, *, inputs: Inputs, rank: int) -> None:
        super().__init__(inputs=inputs)
        self.deadly = rank

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for steps, event in enumerate(super()._train(job, source)):
            if (job.trial.id, steps) == ("5", 1) and not noted(self.folder, "deaths"):
                if self.rank != self.deadly:
                    signal.pause()
                self.note("deaths", job.id)
                os.kill(os.getpid(), signal.SIGKILL)
            yield event


class FailingRank(Ranked):
    """One rank alone, or all, fail at trial 5; who does not waits for the others, as in a sum over all."""

    def __init__(self, *, inputs: Inputs, failing: frozenset[int]) -> None:
        super().__init__(inputs=inputs)
        self.failing = failing

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        if job.trial.id != "5":
            yield from super()._train(job, source)
        elif self.rank in self.failing:
            yield self._report(job, state="infeasible", examples=job.start, error=f"no room on {self.rank}")
        else:
            signal.pause()


class CutOff(Ranked):
    """At trial 5 the second of three processes reports an error, once, which came of the third's death."""

    def __init__(self, *, inputs: Inputs) -> None:
        super().__init__(inputs=inputs)
        # On a busy machine the third may be late to die.
        group._GRACE_SECONDS = 60

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        if job.trial.id != "5" or noted(self.folder, "deaths"):
            yield from super()._train(job, source)
        elif self.rank == 1:
            self.note("cut off", job.id)
            yield self._report(job, state="failed", examples=job.start, error="connection closed by peer")
        elif self.rank == 2:
            while not noted(self.folder, "cut off"):
                time.sleep(0.01)
            self.note("deaths", job.id)
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            signal.pause()


class AbsentRank(Ranked):
    """The second rank finds no model; the first waits for it."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        if self.rank == 1:
            raise ModelError("model.path=/nowhere: no such folder.")
        signal.pause()
        raise AssertionError
