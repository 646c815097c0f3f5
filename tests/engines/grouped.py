"""The reference engine in a group: it notes what it holds, and one of its processes is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from torch.distributed.tensor import DTensor

from sweep.engines.solo import Solo
from sweep.ranks import this_rank
from sweep.types import Job, Progress, Report, Source


class Grouped(Solo):
    """Notes before each job its process and the numbers that it holds of the model's layers.

    The second process is killed, once, in the third step of trial "killed".
    """

    def one(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        assert self._model is not None
        layers = [weight for name, weight in self._model.named_parameters() if ".layers." in name]
        held = sum(weight.to_local().numel() for weight in layers if isinstance(weight, DTensor))
        folder, rank = self._inputs.folder.parent, this_rank().number
        with (folder / "held").open("a") as notes:
            notes.write(f"{rank} {os.getpid()} {held} {sum(weight.numel() for weight in layers)}\n")
        steps = 0
        for event in super().one(job, source):
            steps += isinstance(event, Progress)
            if (job.trial.id, rank, steps) == ("killed", 1, 3) and not (folder / "killed").exists():
                (folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield event
