"""Engines on closed-form curves that take their time, and that use up the memory of their process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic
from sweep.types import Job, Progress, Report, Source
from tests.backends.engines import Deadly


class Paced(Synthetic):
    """Takes so long for an example, so that a sweep lives long enough to be disturbed."""

    def __init__(self, *, inputs: Inputs, noise: float, seconds_per_example: float) -> None:
        super().__init__(inputs=inputs, noise=noise)
        self._seconds_per_example = seconds_per_example

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        for event in super()._train(job, source):
            if isinstance(event, Progress):
                time.sleep(self._seconds_per_example * job.trial.recipe.batch_size)
            yield event


class Hungry(Deadly):
    """At one trial it joins a control group and takes more memory than that has."""

    def __init__(self, *, inputs: Inputs, trial: str, times: int, group: Path, taken: int) -> None:
        super().__init__(inputs=inputs, trial=trial, when="step", times=times)
        self._group = group
        self._taken = taken

    def die(self, held: str) -> None:
        if self.note("deaths", held) < self.times:
            (self._group / "cgroup.procs").write_text(str(os.getpid()))
            bytearray(self._taken)
            raise AssertionError("there was memory enough")
