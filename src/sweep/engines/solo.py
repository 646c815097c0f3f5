"""One trial at a time through HF Trainer and PEFT: the reference that faster engines must agree with."""

from __future__ import annotations

import errno
import gc
import math
import os
import resource
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed
from transformers.utils import logging as transformers_logging

from sweep.data.encode import Encoded
from sweep.engines import checkpoint
from sweep.engines.evaluate import bits_per_byte, loss_batches, per_token
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.model import peft_on_transformers
from sweep.engines.segment import Outcome, Segment
from sweep.errors import ConfigError, DataError, ModelError, SweepError
from sweep.types import Capacity, Done, Job, Progress, Recipe, Report, RowLoss, Source, Wait

_EVALUATION_TOKENS = 2048


class Solo:
    """Loads the base model once; wraps it for each job and unwraps it again.

    micro_batch: the most rows in memory at once. Out of memory halves it and trains the job again
    from its checkpoint with gradients accumulated, so the effective batch is always the recipe's;
    a single row that does not fit makes the trial infeasible.
    """

    def __init__(self, *, inputs: Inputs, micro_batch: int) -> None:
        if micro_batch < 1:
            raise ValueError(f"needs micro_batch >= 1, got {micro_batch}")
        self._inputs = inputs
        self._micro_batch = micro_batch
        self._model: PreTrainedModel | None = None

    def run(self, source: Source) -> Iterator[Progress | Report]:
        self._load()
        while True:
            job = source.next(Capacity())
            if isinstance(job, Done):
                return
            if isinstance(job, Wait):
                time.sleep(0.05)
                continue
            yield from self._boundary(job, source)

    def close(self) -> None:
        self._model = None
        _free_memory()

    def _load(self) -> None:
        if self._model is not None:
            return
        transformers_logging.set_verbosity_error()
        base = self._inputs.model.load()
        self._model, self._pad_token = base.model, cast(int, base.tokenizer.pad_token_id)
        self._rows = EncodedRows(self._inputs, base.tokenizer)

    def _boundary(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        """The worker's boundary: whatever a job raises becomes its failed report.

        Not so what every other job would raise as well: data or a model to mend, a full disk.
        """
        begun = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            yield from self._attempt(job, source, begun)
        except (DataError, ModelError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reason = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            if isinstance(error, SweepError):
                reason = str(error)
            yield _report(job, Outcome(state="failed", examples_seen=job.start, error=reason), begun)
        finally:
            _free_memory()

    def _attempt(self, job: Job, source: Source, begun: float) -> Iterator[Progress | Report]:
        micro_batch = min(self._micro_batch, job.trial.recipe.batch_size)
        while True:
            try:
                yield from self._job(job, source, begun, micro_batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if micro_batch == 1:
                    reason = f"one row of up to {self._inputs.max_tokens} tokens does not fit: {error}"
                    yield _report(
                        job, Outcome(state="infeasible", examples_seen=job.start, error=reason), begun
                    )
                    return
                micro_batch = max(1, micro_batch // 2)
            else:
                return
            _free_memory()

    def _job(self, job: Job, source: Source, begun: float, micro_batch: int) -> Iterator[Progress | Report]:
        wrapped = self._wrap(job)
        work = self._inputs.folder / f".work.{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        steps: list[Progress] = []
        outcome = Outcome(state="reached", examples_seen=job.stop)
        saved = job.checkpoint
        try:
            if job.stop > job.start:
                segment = self._segment(job, source, work, micro_batch)
                for event in segment.train(cast(PeftModel, wrapped)):
                    if isinstance(event, Progress):
                        steps.append(event)
                        yield event
                    else:
                        outcome = event
                saved = self._keep(job, outcome, work)
            rows = self._rows.view(job.evaluation)
            losses: dict[int, RowLoss] = {}
            if outcome.state == "reached":
                for batch in loss_batches(
                    cast(PreTrainedModel, wrapped),
                    rows,
                    pad_token=self._pad_token,
                    tokens_per_batch=min(micro_batch * self._inputs.max_tokens, _EVALUATION_TOKENS),
                ):
                    losses |= batch
                    if job.id in source.cancelled():
                        outcome = Outcome(state="stopped", examples_seen=job.stop, error="cancelled")
                        break
            yield _report(job, outcome, begun, steps=steps, checkpoint=saved, losses=losses, rows=rows)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(wrapped, PeftModel):
                self._model = cast(PreTrainedModel, wrapped.unload())

    def _wrap(self, job: Job) -> PeftModel | PreTrainedModel:
        assert self._model is not None
        if job.checkpoint:
            checkpoint.verified(Path(job.checkpoint))
        if job.start == job.stop and job.checkpoint is None:
            return self._model
        with peft_on_transformers():
            if job.start == job.stop:
                return PeftModel.from_pretrained(self._model, str(job.checkpoint))
            _check_modules(job.trial.recipe, self._model)
            set_seed(job.trial.seed)
            return cast(PeftModel, get_peft_model(self._model, _lora_config(job.trial.recipe)))

    def _segment(self, job: Job, source: Source, work: Path, micro_batch: int) -> Segment:
        return Segment(
            job=job,
            source=source,
            rows=self._rows.view(job.train),
            work=work,
            micro_batch=micro_batch,
            pad_token=self._pad_token,
        )

    def _keep(self, job: Job, outcome: Outcome, work: Path) -> str | None:
        if outcome.state not in ("reached", "stopped"):
            return None
        produced = next(work.glob("checkpoint-*"))
        target = self._inputs.folder / job.trial.id / str(outcome.examples_seen)
        with checkpoint.writing(target) as aside:
            for path in produced.iterdir():
                # training_args.bin is a pickle, README.md a form to fill in: neither is state.
                if path.name not in ("training_args.bin", "README.md"):
                    path.replace(aside / path.name)
        return str(target)


def _check_modules(recipe: Recipe, model: PreTrainedModel) -> None:
    """Nothing, or ConfigError: the recipe names a layer that the model doesn't have."""
    if isinstance(recipe.target_modules, str):
        return
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    for wanted in recipe.target_modules:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in linear):
            offered = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise ConfigError(
                f"recipe.target_modules: {wanted!r} is no linear layer of the model; each name must be one. "
                f"Write all-linear, or choose from {offered}."
            )


def _lora_config(recipe: Recipe) -> LoraConfig:
    modules = recipe.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.rslora,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def _report(
    job: Job,
    outcome: Outcome,
    begun: float,
    *,
    steps: Sequence[Progress] = (),
    checkpoint: str | None = None,
    losses: Mapping[int, RowLoss] | None = None,
    rows: Sequence[Encoded] = (),
) -> Report:
    state, error = outcome.state, outcome.error
    scored = tuple(losses[i] for i in range(len(rows))) if losses and state == "reached" else ()
    loss = per_token(scored) if scored else None
    if loss is not None and not math.isfinite(loss):
        state, error, loss = "diverged", f"validation loss is {loss}. Lower the learning rate.", None
    return Report(
        job=job.id,
        trial=job.trial.id,
        attempt=job.attempt,
        examples_seen=outcome.examples_seen,
        state=state,
        validation_loss=loss,
        bits_per_byte=bits_per_byte(scored, rows) if loss is not None else None,
        train_loss=sum(step.train_loss for step in steps) / len(steps) if steps else None,
        rows=scored,
        checkpoint=checkpoint,
        seconds=time.monotonic() - begun,
        tokens=sum(step.tokens for step in steps),
        peak_bytes=_peak_bytes(),
        ended_ms=time.time_ns() // 1_000_000,
        error=error,
    )


def _peak_bytes() -> int:
    """Of the job's device memory where there is a GPU, else of this process's resident memory so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
