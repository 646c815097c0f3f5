"""One trial at a time through HF Trainer and PEFT: the reference that faster engines must agree with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed
from transformers.utils import logging as transformers_logging

from sweep.data.encode import Encoded
from sweep.engines import checkpoint, sharded
from sweep.engines.answer import Trained, measured, unless_cancelled
from sweep.engines.evaluate import Predicted, loss_batches, predictions
from sweep.engines.footprint import state_bytes
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.lora import initial_A, peft_config, peft_name, targeted
from sweep.engines.model import Base, peft_on_transformers
from sweep.engines.outcome import (
    Account,
    Measured,
    Outcome,
    failed,
    free_memory,
    is_out_of_memory,
    report_of,
    settle,
)
from sweep.engines.segment import Segment
from sweep.ranks import this_rank
from sweep.types import Capacity, Done, Job, Progress, Report, Source, Wait

_EVALUATION_TOKENS = 2048


class Solo:
    """Loads the base model once; wraps it for each job and unwraps it again.

    micro_batch: the most rows in memory at once. Out of memory halves it and trains the job again
    from its checkpoint with gradients accumulated, so the effective batch is always the recipe's;
    a single row that does not fit makes the trial infeasible.

    In a group of processes (`ranks.py`) they hold the model together, and each has one of these, which must
    be given the same jobs and the same answers to `cancelled`. A report "failed" or "infeasible" then may be
    of one of them alone, and the group can't go on. Replies and losses are those of every process.
    """

    state_bytes = staticmethod(state_bytes)

    def __init__(self, *, inputs: Inputs, micro_batch: int) -> None:
        if micro_batch < 1:
            raise ValueError(f"needs micro_batch >= 1, got {micro_batch}")
        self._inputs = inputs
        self._micro_batch = micro_batch
        self._model: PreTrainedModel | None = None
        # Of rows that were probed, for the next trial that saw them.
        self._base_min_k: dict[str, float] = {}

    def run(self, source: Source) -> Iterator[Progress | Report]:
        self._load()
        while True:
            job = source.next(Capacity())
            if isinstance(job, Done):
                return
            if isinstance(job, Wait):
                time.sleep(0.05)
                continue
            yield from self.one(job, source)

    def close(self) -> None:
        self._model = None
        free_memory()
        sharded.leave()

    def adopt(self, base: Base, rows: EncodedRows) -> None:
        """Use a base model that is loaded already, and its rows."""
        self._model, self._tokenizer = base
        self._rows = rows

    def _load(self) -> None:
        if self._model is not None:
            return
        transformers_logging.set_verbosity_error()
        settle()
        base = sharded.loaded(self._inputs.model)
        self.adopt(base, EncodedRows(self._inputs, base.tokenizer))

    def one(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        """The worker's boundary: whatever a job raises becomes its failed report.

        Not so what every other job would raise as well: data or a model to mend, a full disk.
        """
        begun = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            with checkpoint.fetched(job.checkpoint) if job.checkpoint else nullcontext() as folder:
                here = replace(job, checkpoint=str(folder)) if folder else job
                for event in self._attempt(here, source, begun):
                    if isinstance(event, Report) and event.checkpoint == here.checkpoint:
                        event = replace(event, checkpoint=job.checkpoint)
                    yield event
        except Exception as error:  # noqa: BLE001 - reported, or raised again
            yield report_of(job, failed(job, error), _since(begun))
        finally:
            free_memory()

    def _attempt(self, job: Job, source: Source, begun: float) -> Iterator[Progress | Report]:
        micro_batch = min(self._micro_batch, job.trial.recipe.batch_size)
        while True:
            try:
                yield from self._job(job, source, begun, micro_batch)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                # Memory may be short on one device of a group only, and the others would never know.
                if micro_batch == 1 or this_rank().count > 1:
                    reason = self._too_large(micro_batch, error)
                    outcome = Outcome(state="infeasible", examples_seen=job.start, error=reason)
                    yield report_of(job, outcome, _since(begun))
                    return
                micro_batch = max(1, micro_batch // 2)
            else:
                return
            free_memory()

    def _too_large(self, micro_batch: int, error: BaseException) -> str:
        rows, do = ("one row", "does") if micro_batch == 1 else (f"{micro_batch} rows", "do")
        count = this_rank().count
        where = f" on one of the worker's {count} devices" if count > 1 else ""
        cure = " Lower engine.micro_batch." if micro_batch > 1 else ""
        return f"{rows} of up to {self._inputs.max_tokens} tokens {do} not fit{where}: {error}{cure}"

    def _job(self, job: Job, source: Source, begun: float, micro_batch: int) -> Iterator[Progress | Report]:
        wrapped = self._wrap(job)
        work = checkpoint.own(self._inputs.folder / "work")
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
            found = None
            if outcome.state == "reached":
                found = self._measured(job, source, cast(PreTrainedModel, wrapped), micro_batch)
                if found is None:
                    outcome = Outcome(state="stopped", examples_seen=job.stop, error="cancelled")
            yield report_of(
                job,
                outcome,
                _since(begun, steps),
                checkpoint=saved,
                measured=found,
                rows=self._rows.view(job.evaluation),
            )
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(wrapped, PeftModel):
                self._model = cast(PreTrainedModel, wrapped.unload())
            # Trainer leaves it in training mode, and the packed engine may use it next.
            cast(PreTrainedModel, self._model).eval()

    def _measured(
        self, job: Job, source: Source, model: PreTrainedModel, micro_batch: int
    ) -> Measured | None:
        """The job's losses and what else it asks, None where it was cancelled."""
        tokens = min(micro_batch * self._inputs.max_tokens, _EVALUATION_TOKENS)
        losses = unless_cancelled(
            loss_batches(
                model,
                self._rows.view(job.evaluation),
                pad_token=self._pad_token,
                tokens_per_batch=tokens,
            ),
            job,
            source,
        )
        if losses is None:
            return None
        expect = partial(predictions, pad_token=self._pad_token, tokens_per_batch=tokens)

        def before(rows: Sequence[Encoded]) -> Iterator[Predicted]:
            with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
                yield from expect(model, rows)

        trained = Trained(model, self._tokenizer, partial(expect, model), before, self._base_min_k)
        return measured(job, losses, trained, self._rows, source=source)

    @property
    def _pad_token(self) -> int:
        return cast(int, self._tokenizer.pad_token_id)

    def _wrap(self, job: Job) -> PeftModel | PreTrainedModel:
        assert self._model is not None
        if job.start == job.stop and job.checkpoint is None:
            return self._model
        with peft_on_transformers():
            if job.start == job.stop:
                return PeftModel.from_pretrained(self._model, str(job.checkpoint))
            recipe = job.trial.recipe
            layers = targeted(self._model, recipe)
            set_seed(job.trial.seed)
            config = peft_config(recipe, recipe.target_modules)
            wrapped = cast(PeftModel, get_peft_model(self._model, config))
            _begin(wrapped, layers, job.trial.seed)
            return wrapped

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
        target = self._inputs.state(job, outcome.examples_seen)
        if not this_rank().first:
            return str(target)
        produced = next(work.glob("checkpoint-*"))
        with checkpoint.writing(target) as aside:
            for path in produced.iterdir():
                # training_args.bin is a pickle, README.md a form to fill in: neither is state.
                if path.name not in ("training_args.bin", "README.md"):
                    shutil.move(path, aside / path.name)
        return target


def _begin(wrapped: PeftModel, layers: Iterable[str], seed: int) -> None:
    """Start from the weights that every engine starts from."""
    for name in layers:
        (A,) = wrapped.get_submodule(peft_name(name)).lora_A.parameters()  # type: ignore[union-attr]
        A.data.copy_(initial_A(seed, name, *A.shape))


def _since(begun: float, steps: Sequence[Progress] = ()) -> Account:
    return Account(seconds=time.monotonic() - begun, steps=steps)
