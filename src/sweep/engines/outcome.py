"""How a job ends: one report, whatever happened, for every engine that trains a model."""

from __future__ import annotations

import errno
import gc
import math
import os
import re
import resource
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from sweep.data.encode import Encoded
from sweep.engines.evaluate import bits_per_byte, per_token
from sweep.errors import CheckpointError, DataError, ModelError, SweepError, TrainingError, is_full_disk
from sweep.types import Job, Progress, Reply, Report, ReportState, RowLoss, RowProbe

# Twice the loss of a uniform guess: a random model sits at it, training never passes it and returns.
_DIVERGED_AT_UNIFORM_LOSSES = 2.0


# What torch.save says on a full disk.
_TORCH_CANT_WRITE = re.compile(r"inline_container\.cc.*(unexpected pos|failed writing)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the training of a job ended, before it is scored."""

    state: ReportState
    examples_seen: int
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a job cost and what its steps said. seconds: of the device, for this job alone."""

    seconds: float = 0.0
    steps: Sequence[Progress] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


class Measured(NamedTuple):
    """What a job found at its rung: the loss of each row of its view, in order, and what else it asked."""

    losses: Sequence[RowLoss] = ()
    replies: tuple[Reply, ...] = ()
    probed: tuple[RowProbe, ...] = ()


def diverged(step: Progress, vocabulary: int) -> Outcome | None:
    """The outcome of a step whose loss or gradient can't be gone on from, None for any other."""
    limit = _DIVERGED_AT_UNIFORM_LOSSES * math.log(vocabulary)
    loss, norm = step.train_loss, step.gradient_norm
    if math.isfinite(loss) and math.isfinite(norm) and loss < limit:
        return None
    reason = (
        f"training loss {loss:.4g}, gradient norm {norm:.4g} after {step.examples_seen} examples: the loss "
        f"must stay below {limit:.3g}, twice that of a uniform guess. Lower the learning rate."
    )
    return Outcome(state="diverged", examples_seen=step.examples_seen, error=reason)


def failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a job that raised.

    Raised again is what every other job would raise as well: data or a model to mend, a full disk, a place
    for checkpoints that can't be reached, a GPU that no longer answers this process.
    """
    if isinstance(error, DataError | ModelError | TrainingError | torch.AcceleratorError):
        raise error
    if is_full_disk(error):
        raise error
    safetensors = isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error)
    if safetensors or (isinstance(error, RuntimeError) and _TORCH_CANT_WRITE.search(str(error))):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    reason = f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"
    if isinstance(error, SweepError):
        reason = str(error)
    state: ReportState = "broken" if isinstance(error, CheckpointError) else "failed"
    return Outcome(state=state, examples_seen=job.start, error=reason)


def report_of(
    job: Job,
    outcome: Outcome,
    account: Account,
    *,
    checkpoint: str | None = None,
    measured: Measured | None = None,
    rows: Sequence[Encoded] = (),
) -> Report:
    """The job's report. measured: used only if the rung was reached; rows: those whose losses it holds."""
    state, error = outcome.state, outcome.error
    found = measured if measured and state == "reached" else Measured()
    loss = per_token(found.losses) if found.losses else None
    if loss is not None and not math.isfinite(loss):
        state, error, loss = "diverged", f"validation loss is {loss}. Lower the learning rate.", None
    steps = account.steps
    return Report(
        job=job.id,
        trial=job.trial.id,
        attempt=job.attempt,
        examples_seen=outcome.examples_seen,
        state=state,
        validation_loss=loss,
        bits_per_byte=bits_per_byte(found.losses, rows) if loss is not None else None,
        train_loss=sum(step.train_loss for step in steps) / len(steps) if steps else None,
        metrics=account.metrics,
        rows=tuple(found.losses),
        replies=found.replies,
        probed=found.probed,
        checkpoint=checkpoint,
        seconds=account.seconds,
        tokens=sum(step.tokens for step in steps),
        peak_bytes=peak_bytes(),
        ended_ms=time.time_ns() // 1_000_000,
        error=error,
    )


def peak_bytes() -> int:
    """Of device memory since its counter was reset where there is a GPU, else of this process's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the process had no room."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def settle() -> None:
    """Leave what lives now, all modules that is, out of every later collection; done once in a process.

    Looking through them took two thirds of a one-step job on a tiny model (`docs/log.md`).
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def free_memory() -> None:
    """Give back what nobody holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
