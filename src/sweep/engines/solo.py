"""One trial at a time through HF Trainer and PEFT: the reference that faster engines must agree with."""

from __future__ import annotations

import functools
import gc
import math
import os
import queue
import resource
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from sweep.data.encode import Encoded
from sweep.engines import checkpoint
from sweep.engines.evaluate import bits_per_byte, collate, loss_batches, per_token
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.model import peft_on_transformers
from sweep.engines.stream import Stream
from sweep.types import Capacity, Done, Job, Progress, Recipe, Report, ReportState, RowLoss, Source, Wait

_SCHEDULES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "wsd": "warmup_stable_decay",
}
# Twice the loss of a uniform guess: a random model sits at it, training never passes it and returns.
_DIVERGED_AT_UNIFORM_LOSSES = 2.0
_DECAY_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    state: ReportState
    examples_seen: int
    error: str | None = None


class Solo:
    """Loads the base model once; wraps it for each job and unwraps it again.

    micro_batch: the most rows in memory at once. Out of memory halves it and trains the job again
    from its checkpoint with gradients accumulated, so the effective batch is always the recipe's;
    a single row that does not fit makes the trial infeasible.
    """

    def __init__(self, *, inputs: Inputs, micro_batch: int) -> None:
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
        """The worker's boundary: whatever a job raises becomes its failed report."""
        begun = time.monotonic()
        try:
            yield from self._attempt(job, source, begun)
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            yield _report(job, _Outcome(state="failed", examples_seen=job.start, error=reason), begun)
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
                        job, _Outcome(state="infeasible", examples_seen=job.start, error=reason), begun
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
        outcome = _Outcome(state="reached", examples_seen=job.stop)
        saved = job.checkpoint
        try:
            if job.stop > job.start:
                train = functools.partial(
                    self._train, job, source, cast(PeftModel, wrapped), work, micro_batch
                )
                for event in _in_thread(train):
                    if isinstance(event, Progress):
                        steps.append(event)
                        yield event
                    else:
                        outcome = event
                saved = self._keep(job, outcome, work)
            rows = self._rows.view(job.evaluation)
            losses: dict[int, RowLoss] = {}
            if outcome.state == "reached":
                for batch in loss_batches(cast(PreTrainedModel, wrapped), rows, pad_token=self._pad_token):
                    losses |= batch
                    if job.id in source.cancelled():
                        outcome = _Outcome(state="stopped", examples_seen=job.stop, error="cancelled")
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
            set_seed(job.trial.seed)
            return cast(PeftModel, get_peft_model(self._model, lora_config(job.trial.recipe)))

    def _train(
        self,
        job: Job,
        source: Source,
        model: PeftModel,
        work: Path,
        micro_batch: int,
        emit: Callable[[Progress], None],
    ) -> _Outcome:
        recipe = job.trial.recipe
        rows = self._rows.view(job.train)
        relay = _Relay(job, source, emit, lengths=_lengths(job, rows), vocabulary=model.config.vocab_size)
        trainer = _Segment(
            model=model,
            args=_arguments(job, work, micro_batch, bf16=model.dtype is torch.bfloat16),
            train_dataset=_Positions(
                rows, Stream(len(rows), seed=job.trial.seed), _steps(job, job.horizon), recipe
            ),
            data_collator=lambda batch: collate(batch, self._pad_token)._asdict(),
            callbacks=[relay],
        )
        trainer.start_position = _steps(job, job.start) * recipe.batch_size
        trainer.checkpoint = job.checkpoint
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=job.checkpoint)
        trainer.accelerator.free_memory()
        return relay.outcome

    def _keep(self, job: Job, outcome: _Outcome, work: Path) -> str | None:
        if outcome.state not in ("reached", "stopped"):
            return None
        (produced,) = work.glob("checkpoint-*")
        target = self._inputs.folder / job.trial.id / str(outcome.examples_seen)
        with checkpoint.writing(target) as aside:
            for path in produced.iterdir():
                # training_args.bin is a pickle, README.md a form to fill in: neither is state.
                if path.name not in ("training_args.bin", "README.md"):
                    path.replace(aside / path.name)
        return str(target)


class _Segment(Trainer):
    """A Trainer that resumes exactly: its data starts where the checkpoint left off, its dropout too."""

    start_position = 0
    checkpoint: str | None = None

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return _From(self.start_position, len(cast(_Positions, self.train_dataset)))

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        # Trainer restores the random state before it makes the data iterator, which draws from it.
        if self.checkpoint is not None:
            self._load_rng_state(self.checkpoint)
            self.checkpoint = None
        return super().training_step(*arguments, **keywords)


class _From(Sampler[int]):
    """Positions from `start` on; its length is that of the whole schedule, which Trainer counts steps by."""

    def __init__(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._stop))

    def __len__(self) -> int:
        return self._stop


class _Positions(Dataset[Encoded]):
    """Rows by their position in the stream, up to the end of the schedule."""

    def __init__(self, rows: Sequence[Encoded], stream: Stream, steps: int, recipe: Recipe) -> None:
        self._rows, self._stream = rows, stream
        self._length = steps * recipe.batch_size

    def __getitem__(self, position: int) -> Encoded:
        return self._rows[self._stream[position]]

    def __len__(self) -> int:
        return self._length


class _Relay(TrainerCallback):
    """Turns Trainer's steps into progress and ends training at the rung, on NaN, or when cancelled."""

    def __init__(
        self,
        job: Job,
        source: Source,
        emit: Callable[[Progress], None],
        *,
        lengths: Callable[[int], int],
        vocabulary: int,
    ) -> None:
        self._job, self._source, self._emit, self._lengths = job, source, emit, lengths
        self._limit = _DIVERGED_AT_UNIFORM_LOSSES * math.log(vocabulary)
        self._batch = job.trial.recipe.batch_size
        self.outcome = _Outcome(state="reached", examples_seen=job.stop)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        at_rung = state.global_step >= _steps(self._job, self._job.stop)
        if not at_rung and self._job.id in self._source.cancelled():
            self.outcome = _Outcome(
                state="stopped", examples_seen=state.global_step * self._batch, error="cancelled"
            )
        if at_rung or self.outcome.state == "stopped":
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        seen = state.global_step * self._batch
        loss, norm = float(logs["loss"]), float(logs["grad_norm"])
        self._emit(
            Progress(
                job=self._job.id,
                trial=self._job.trial.id,
                examples_seen=seen,
                train_loss=loss,
                gradient_norm=norm,
                learning_rate=float(logs["learning_rate"]),
                tokens=self._lengths(state.global_step),
            )
        )
        if not (math.isfinite(loss) and math.isfinite(norm) and loss < self._limit):
            reason = (
                f"training loss {loss:.4g}, gradient norm {norm:.4g} after {seen} examples: the loss must "
                f"stay below {self._limit:.3g}, twice that of a uniform guess. Lower the learning rate."
            )
            self.outcome = _Outcome(state="diverged", examples_seen=seen, error=reason)
            control.should_save = False
            control.should_training_stop = True


def lora_config(recipe: Recipe) -> LoraConfig:
    """PEFT's configuration of a recipe's adapter."""
    modules = recipe.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.rslora,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def _arguments(job: Job, work: Path, micro_batch: int, *, bf16: bool) -> TrainingArguments:
    recipe = job.trial.recipe
    steps = _steps(job, job.horizon)
    # The largest divisor of the batch that fits, so that accumulation gives the recipe's batch exactly.
    rows = next(n for n in range(micro_batch, 0, -1) if recipe.batch_size % n == 0)
    warmup = round(recipe.warmup_fraction * steps)
    decay = {"num_decay_steps": round(_DECAY_SHARE * steps)} if recipe.schedule == "wsd" else {}
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=recipe.batch_size // rows,
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        lr_scheduler_type=_SCHEDULES[recipe.schedule],
        lr_scheduler_kwargs=decay,
        warmup_steps=warmup,
        seed=job.trial.seed,
        ignore_data_skip=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16 and torch.cuda.is_available(),
    )


def _steps(job: Job, examples: int) -> int:
    """Optimiser steps after which at least `examples` were seen."""
    return math.ceil(examples / job.trial.recipe.batch_size)


def _lengths(job: Job, rows: Sequence[Encoded]) -> Callable[[int], int]:
    stream, batch = Stream(len(rows), seed=job.trial.seed), job.trial.recipe.batch_size

    def tokens(step: int) -> int:
        return sum(len(rows[stream[i]].input_ids) for i in range((step - 1) * batch, step * batch))

    return tokens


def _in_thread(
    train: Callable[[Callable[[Progress], None]], _Outcome],
) -> Iterator[Progress | _Outcome]:
    """The progress of a training that runs in a thread, then its outcome; its exceptions are raised here.

    Trainer calls back, an engine is a generator: the thread turns one into the other, and leaves
    the main thread free to hear Ctrl-C.
    """
    events: queue.SimpleQueue[Progress | _Outcome | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            events.put(train(events.put))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller, not handled
            events.put(error)

    thread = threading.Thread(target=run, name="trainer", daemon=True)
    thread.start()
    while isinstance(event := events.get(), Progress):
        yield event
    thread.join()
    if isinstance(event, BaseException):
        raise event
    yield event


def _report(
    job: Job,
    outcome: _Outcome,
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
    """Device memory at its highest where there is a GPU, else this process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
