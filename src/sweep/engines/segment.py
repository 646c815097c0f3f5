"""A stretch of training through HF Trainer: exact in its batches, its data order and its resuming."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.trainer_callback import PrinterCallback

from sweep.data.encode import Encoded
from sweep.engines import sharded
from sweep.engines.evaluate import collate, labelled
from sweep.engines.nats import nats
from sweep.engines.outcome import Outcome, diverged
from sweep.engines.schedule import schedule_of, steps
from sweep.engines.stream import Stream
from sweep.ranks import this_rank
from sweep.types import Job, Progress, Recipe, Source


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a job's training needs besides the model. work: an empty folder for Trainer's checkpoint.

    In a group the first process alone writes one.
    """

    job: Job
    source: Source
    rows: Sequence[Encoded]
    work: Path
    micro_batch: int
    pad_token: int

    def train(self, model: PeftModel) -> Iterator[Progress | Outcome]:
        """The progress of every step, then the outcome. Unless it diverged, `work` holds one checkpoint.

        Trainer calls back, an engine is a generator: a thread turns one into the other and leaves the
        main thread free to hear Ctrl-C. What training raises is raised here.
        """
        events: queue.SimpleQueue[Progress | Outcome | BaseException] = queue.SimpleQueue()

        def run() -> None:
            try:
                events.put(self._run(model, events.put))
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

    def _run(self, model: PeftModel, emit: Callable[[Progress], None]) -> Outcome:
        job, recipe = self.job, self.job.trial.recipe
        stream = Stream(len(self.rows), seed=job.trial.seed)
        relay = _Relay(self, stream, emit, vocabulary=model.config.vocab_size)
        share = _Share(self.rows, stream, recipe.batch_size, steps(job, job.horizon))
        trainer = _Trainer(
            model=model,
            args=_arguments(self, share.rows_per_step, bf16=model.dtype is torch.bfloat16),
            train_dataset=share,
            data_collator=lambda batch: collate(batch, self.pad_token)._asdict(),
            compute_loss_func=_loss,
            callbacks=[relay],
            optimizers=(_optimiser(model, recipe), None),
        )
        trainer.start_position = steps(job, job.start) * share.rows_per_step
        trainer.checkpoint = job.checkpoint
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=job.checkpoint)
        trainer.accelerator.free_memory()
        return relay.outcome


class _Trainer(Trainer):
    """A Trainer that resumes exactly: its data starts where the checkpoint left off, its dropout too.

    In a group each process has one that knows nothing of the others, but that it learns from all rows.
    """

    start_position = 0
    checkpoint: str | None = None
    _drawn = -1

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return _From(self.start_position, len(cast(_Share, self.train_dataset)))

    def get_batch_samples(self, *arguments: Any, **keywords: Any) -> tuple[list[Any], torch.Tensor]:
        samples, learned = super().get_batch_samples(*arguments, **keywords)
        return samples, sharded.summed(cast(torch.Tensor, learned))

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        # Trainer restores the random state before it makes the data iterator, which draws from it.
        if self.checkpoint is not None:
            self._load_rng_state(self.checkpoint)
            self.checkpoint = None
        if self._drawn != self.state.global_step:
            self._drawn = self.state.global_step
            sharded.draw_apart(self.args.seed, self._drawn)
        loss = sharded.summed(super().training_step(*arguments, **keywords))
        if self.accelerator.sync_gradients:
            sharded.sum_gradients(cast(torch.nn.Module, self.model))
        return loss


class _From(Sampler[int]):
    """Positions from `start` on; its length is that of the whole schedule, which Trainer counts steps by."""

    def __init__(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._stop))

    def __len__(self) -> int:
        return self._stop


class _Share(Dataset[Encoded]):
    """This process's rows of each batch, up to the end of the schedule: all of them, where it is alone.

    In a group the rows are dealt out in turn. Where they don't come out even, who lacks one gets a token
    from which there is nothing to learn.
    """

    def __init__(self, rows: Sequence[Encoded], stream: Stream, batch: int, steps: int) -> None:
        self._rows, self._stream, self._batch, self._steps = rows, stream, batch, steps
        self._rank = this_rank()
        self.rows_per_step = math.ceil(batch / self._rank.count)

    def __getitem__(self, position: int) -> Encoded:
        step, turn = divmod(position, self.rows_per_step)
        place = turn * self._rank.count + self._rank.number
        row = self._rows[self._stream[step * self._batch + min(place, self._batch - 1)]]
        if place < self._batch:
            return row
        return replace(row, input_ids=row.input_ids[:1], response_start=1)

    def __len__(self) -> int:
        return self._steps * self.rows_per_step


class _Relay(TrainerCallback):
    """Turns Trainer's steps into progress and ends training at the rung, on NaN, or when cancelled."""

    def __init__(
        self, segment: Segment, stream: Stream, emit: Callable[[Progress], None], *, vocabulary: int
    ) -> None:
        self._job, self._source, self._rows = segment.job, segment.source, segment.rows
        self._stream, self._emit = stream, emit
        self._vocabulary = vocabulary
        self._batch = segment.job.trial.recipe.batch_size
        self.outcome = Outcome(state="reached", examples_seen=segment.job.stop)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        at_rung = state.global_step >= steps(self._job, self._job.stop)
        if not at_rung and self._job.id in self._source.cancelled():
            self.outcome = Outcome(
                state="stopped", examples_seen=state.global_step * self._batch, error="cancelled"
            )
        if at_rung or self.outcome.state == "stopped":
            control.should_save = this_rank().first
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
        batch = [self._rows[self._stream[position]] for position in range(seen - self._batch, seen)]
        step = Progress(
            job=self._job.id,
            trial=self._job.trial.id,
            examples_seen=seen,
            train_loss=float(logs["loss"]),
            gradient_norm=float(logs["grad_norm"]),
            learning_rate=float(logs["learning_rate"]),
            tokens=sum(len(row.input_ids) for row in batch),
        )
        self._emit(step)
        if outcome := diverged(step, self._vocabulary):
            self.outcome = outcome
            control.should_save = False
            control.should_training_stop = True


def _loss(
    outputs: CausalLMOutputWithPast, labels: torch.Tensor, num_items_in_batch: torch.Tensor
) -> torch.Tensor:
    """Nats per response token, of a micro-batch's share in its batch."""
    assert outputs.logits is not None
    return nats(*labelled(outputs.logits, labels)).sum() / num_items_in_batch


def _arguments(segment: Segment, rows_per_step: int, *, bf16: bool) -> TrainingArguments:
    job, recipe = segment.job, segment.job.trial.recipe
    schedule = schedule_of(job)
    # The largest divisor of the batch that fits, so that accumulation gives the recipe's batch exactly.
    rows = next(n for n in range(segment.micro_batch, 0, -1) if rows_per_step % n == 0)
    arguments = TrainingArguments(
        output_dir=str(segment.work),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=rows_per_step // rows,
        max_steps=schedule.steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        lr_scheduler_type=schedule.name,
        lr_scheduler_kwargs=schedule.specific,
        warmup_steps=schedule.warmup_steps,
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
    # Reading the device counts the GPUs; more than one would be DataParallel, with n times the batch.
    _ = arguments.device
    arguments._n_gpu = min(arguments._n_gpu, 1)
    assert arguments.train_batch_size * arguments.gradient_accumulation_steps == rows_per_step
    return arguments


def _optimiser(model: PeftModel, recipe: Recipe) -> torch.optim.Optimizer | None:
    """Trainer's own AdamW by None, or one in which B learns faster."""
    if recipe.lora_plus_ratio == 1.0:
        return None
    optimiser: torch.optim.Optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=recipe.learning_rate,
        loraplus_lr_ratio=recipe.lora_plus_ratio,
        loraplus_weight_decay=recipe.weight_decay,
    )
    return optimiser
