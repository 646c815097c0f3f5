"""Many trials at once on one frozen base model; a slot is refilled as soon as its trial pauses or ends."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

from transformers.utils import logging as transformers_logging

from sweep.engines import checkpoint
from sweep.engines.answer import Trained, measured
from sweep.engines.footprint import state_bytes
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.layout import length
from sweep.engines.memory import Meter, available_bytes
from sweep.engines.outcome import (
    Account,
    Measured,
    Outcome,
    diverged,
    failed,
    free_memory,
    is_out_of_memory,
    report_of,
    settle,
)
from sweep.engines.shared_base import Part, SharedBase, cut
from sweep.engines.slot import PassShare, Slot, begin, load_adapter
from sweep.engines.solo import Solo
from sweep.types import Capacity, Done, Job, Progress, Report, ReportState, RowLoss, Source, View, Wait

_IDLE_SECONDS = 0.02
# What a first pass on a CPU may take of the memory that is there: measuring is not exact.
_SAFE_SHARE = 0.8
MOST_SLOTS = 16

_logger = logging.getLogger("sweep.engines")


class _Share(NamedTuple):
    """What a slot brings to a pass."""

    slot: Slot
    part: Part


class Packed:
    """Trains up to `slots` trials in each pass over the model, up to `tokens` of their tokens at once.

    slots: None for as many as it takes to fill a pass with batches like the first trial's, 16 at
    most. Whatever they are, a slot is only taken while memory lasts, as measured in the first pass.
    Out of memory halves `tokens`, then takes the youngest trial off its slot; each trial keeps the
    recipe's batch by accumulating. What doesn't fit alone is infeasible.

    A model whose rows can't be packed goes to the solo engine, and so does a recipe that adapts the
    output layer; a line in the log says why.
    """

    state_bytes = staticmethod(state_bytes)

    def __init__(self, *, inputs: Inputs, slots: int | None, tokens: int) -> None:
        if (slots is not None and slots < 1) or tokens < 1:
            raise ValueError(f"needs slots >= 1 or null and tokens >= 1, got slots={slots}, tokens={tokens}")
        self._inputs = inputs
        self._most = slots
        self._tokens = tokens
        self._slots: list[Slot] = []
        self._base: SharedBase | None = None
        self._solo: Solo | None = None
        # Of rows that were probed, for the next trial that saw them.
        self._base_min_k: dict[str, float] = {}
        self._bytes_per_token = 0.0

    def run(self, source: Source) -> Iterator[Progress | Report]:
        self._load()
        if self._base is None:
            assert self._solo is not None
            yield from self._solo.run(source)
            return
        ask, done = True, False
        while True:
            while ask and not done and self._has_room():
                job = source.next(Capacity(free_slots=(self._most or 1) - len(self._slots)))
                if isinstance(job, Job):
                    yield from self._admit(job, source)
                done, ask = isinstance(job, Done), not isinstance(job, Wait)
            if not self._slots:
                if done:
                    return
                time.sleep(_IDLE_SECONDS)
                ask = True
                continue
            for event in self._advance(source):
                ask = ask or isinstance(event, Report)
                yield event

    def close(self) -> None:
        self._slots.clear()
        if self._base is not None:
            self._base.close()
        self._base = self._solo = None
        free_memory()

    # Loading

    def _load(self) -> None:
        if self._solo is not None:
            return
        transformers_logging.set_verbosity_error()
        settle()
        base = self._inputs.model.load()
        self._tokenizer = base.tokenizer
        self._rows = EncodedRows(self._inputs, base.tokenizer)
        self._solo = Solo(inputs=self._inputs, micro_batch=max(1, self._tokens // self._inputs.max_tokens))
        self._solo.adopt(base, self._rows)
        shared = SharedBase(base.model)
        by_length = sorted(self._rows.view(View("train")), key=length)
        self._longest = length(by_length[-1])
        if problem := shared.problem([by_length[0], by_length[len(by_length) // 2]]):
            shared.close()
            _logger.warning("engine=packed: trials run one at a time on the solo engine: %s.", problem)
            return
        self._base = shared

    def _slots_for(self, job: Job) -> int:
        """As many as fill a pass with batches like this job's."""
        rows = self._rows.view(job.train)
        batch = job.trial.recipe.batch_size * sum(map(length, rows)) / len(rows)
        return min(MOST_SLOTS, math.ceil(self._tokens / batch))

    # Slots

    def _has_room(self) -> bool:
        """For one more trial: the first always gets its slot."""
        if not self._slots:
            return True
        if len(self._slots) >= cast(int, self._most):
            return False
        largest = max(slot.bytes for slot in self._slots)
        # Every slot has a row in each pass.
        tokens = max(self._tokens, (len(self._slots) + 1) * self._longest)
        return available_bytes(self._shared.device) > largest + self._bytes_per_token * tokens

    def _admit(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        """Give the job a slot; one that can't begin gets its report, one that can't be packed runs now."""
        begun = time.monotonic()
        try:
            self._most = self._most or self._slots_for(job)
            if reason := self._shared.refusal(job.trial.recipe):
                _logger.warning("Trial %s runs on the solo engine: %s.", job.trial.id, reason)
                yield from cast(Solo, self._solo).one(job, source)
                return
            slot = self._slot(job)
        except Exception as error:  # noqa: BLE001 - the worker's boundary: reported, or raised again
            yield report_of(job, failed(job, error), Account(seconds=time.monotonic() - begun))
            return
        slot.seconds += time.monotonic() - begun
        self._slots.append(slot)
        if not self._bytes_per_token:
            yield from self._measure(slot)

    def _measure(self, slot: Slot) -> Iterator[Report]:
        """A pass over one row, to learn what a token takes; it leaves no trace."""
        meter = Meter(self._shared.device)
        part = slot.take(1)
        try:
            self._shared.learn([part], [slot.weight])
        except Exception as error:  # noqa: BLE001 - the worker's boundary: reported, or raised again
            slot.restart_batch()
            yield from self._mend(error, [_Share(slot, part)])
            return
        slot.restart_batch()
        self._bytes_per_token = max(1.0, meter.peak() / part.tokens)
        fits = _SAFE_SHARE * available_bytes(self._shared.device) / self._bytes_per_token
        # By halves, as when memory runs out: few sizes there are, so runs repeat.
        while self._tokens > max(1.0, fits):
            self._tokens //= 2

    def _slot(self, job: Job) -> Slot:
        adapter = self._shared.new_adapter(job.trial.recipe)
        rows, shared = self._rows.view(job.train), self._rows.shared(job.train)
        if job.checkpoint is None:
            begin(adapter, job.trial.seed)
            return Slot(job, rows, adapter, shared=shared)
        with checkpoint.fetched(job.checkpoint) as folder:
            load_adapter(adapter, folder)
            slot = Slot(job, rows, adapter, shared=shared)
            if job.stop > job.start:
                slot.load_moments(folder)
        return slot

    @property
    def _shared(self) -> SharedBase:
        assert self._base is not None
        return self._base

    # Passes

    def _advance(self, source: Source) -> Iterator[Progress | Report]:
        """One pass: of scoring, where trials have come to their rung, or else of training."""
        cancelled = source.cancelled()
        stopped = [slot for slot in self._slots if slot.job.id in cancelled]
        if stopped:
            for slot in stopped:
                yield self._leave(slot, "cancelled")
        elif due := [slot for slot in self._slots if slot.due]:
            yield from self._judge(due, source)
        else:
            yield from self._train()

    def _train(self) -> Iterator[Progress | Report]:
        begun = time.monotonic()
        shares = self._shares()
        try:
            found = self._shared.learn(
                [share.part for share in shares], [share.slot.weight for share in shares]
            )
        except Exception as error:  # noqa: BLE001 - the worker's boundary: mended, reported, or raised again
            for share in shares:
                share.slot.restart_batch()
            yield from self._mend(error, shares)
            return
        tokens = sum(share.part.tokens for share in shares)
        steps = []
        for share, nats in zip(shares, found.nats, strict=True):
            share.slot.add(sum(nats))
            share.slot.passes.append(PassShare(len(shares) / cast(int, self._most), found.padding))
            if not share.slot.waiting:
                steps.append((share.slot, share.slot.step()))
        seconds = time.monotonic() - begun
        for share in shares:
            share.slot.seconds += seconds * share.part.tokens / tokens
        for slot, step in steps:
            yield step
            if outcome := diverged(step, self._shared.vocabulary):
                yield self._release(slot, outcome)

    def _shares(self) -> list[_Share]:
        """Rows for a pass: one of every slot, then in turn as long as there is room."""
        room = self._tokens
        counts = [0] * len(self._slots)
        taking = list(range(len(self._slots)))
        while taking:
            for number in list(taking):
                slot, count = self._slots[number], counts[number]
                waiting = slot.waiting
                if count == len(waiting) or (count and slot.room_for(waiting[count]) > room):
                    taking.remove(number)
                    continue
                room -= slot.room_for(waiting[count]) + (0 if count else slot.shared)
                counts[number] += 1
        return [_Share(slot, slot.take(count)) for slot, count in zip(self._slots, counts, strict=True)]

    # Scoring

    def _judge(self, due: Sequence[Slot], source: Source) -> Iterator[Report]:
        """Score what is due, all of it in the same passes, and report it."""
        begun = time.monotonic()
        shares = [_Share(slot, self._judged(slot)) for slot in due]
        try:
            losses = self._losses(shares, source)
        except Exception as error:  # noqa: BLE001 - the worker's boundary: mended, reported, or raised again
            yield from self._mend(error, shares)
            return
        if losses is None:
            return
        seconds = (time.monotonic() - begun) / len(due)
        for slot in due:
            slot.seconds += seconds
        for share, found in zip(shares, losses, strict=True):
            yield from self._answer(share, found, source)

    def _answer(self, judged: _Share, losses: Sequence[RowLoss], source: Source) -> Iterator[Report]:
        """Report a slot that was scored, once what else its job asks is measured: its adapter alone."""
        begun, slot = time.monotonic(), judged.slot
        try:
            with self._shared.wearing(slot.adapter) as model:
                found = measured(
                    slot.job,
                    losses,
                    Trained(
                        model,
                        self._tokenizer,
                        partial(self._shared.predictions, slot.adapter, tokens=self._tokens),
                        partial(self._shared.predictions, None, tokens=self._tokens),
                        self._base_min_k,
                    ),
                    self._rows,
                    source=source,
                )
        except Exception as error:  # noqa: BLE001 - the worker's boundary: mended, reported, or raised again
            slot.seconds += time.monotonic() - begun
            if is_out_of_memory(error):
                yield from self._mend(error, [judged])
            else:
                yield self._release(slot, failed(slot.job, error))
            return
        slot.seconds += time.monotonic() - begun
        yield self._leave(slot, "cancelled") if found is None else self._leave(slot, found=found)

    def _judged(self, slot: Slot) -> Part:
        """The rows that a slot's trial is judged on."""
        view = slot.job.evaluation
        return Part(slot.adapter, self._rows.view(view), self._rows.shared(view))

    def _losses(self, shares: Sequence[_Share], source: Source) -> list[list[RowLoss]] | None:
        """Of each part's rows in their order; None if one was cancelled meanwhile, which must leave first."""
        parts = [share.part for share in shares]
        nats = [[0.0] * len(part.rows) for part in parts]
        for members in cut(parts, self._tokens):
            if source.cancelled() & {share.slot.job.id for share in shares}:
                return None
            some = [parts[p]._replace(rows=[parts[p].rows[row] for row in rows]) for p, rows in members]
            for (p, rows), found in zip(members, self._shared.score(some).nats, strict=True):
                for row, value in zip(rows, found, strict=True):
                    nats[p][row] = value
        return [
            [
                RowLoss(row.row, value, row.response_tokens)
                for row, value in zip(part.rows, values, strict=True)
            ]
            for part, values in zip(parts, nats, strict=True)
        ]

    # Leaving

    def _leave(self, slot: Slot, cut_short: str | None = None, found: Measured | None = None) -> Report:
        """Save a slot's state, free it and report. cut_short: why it was not taken to its rung and scored."""
        begun = time.monotonic()
        state: ReportState = "stopped" if cut_short else "reached"
        outcome = Outcome(state=state, examples_seen=slot.examples_seen, error=cut_short)
        saved = None
        try:
            saved = self._save(slot)
        except Exception as error:  # noqa: BLE001 - the worker's boundary: reported, or raised again
            outcome = failed(slot.job, error)
        slot.seconds += time.monotonic() - begun
        return self._release(slot, outcome, saved, found)

    def _release(
        self, slot: Slot, outcome: Outcome, saved: str | None = None, found: Measured | None = None
    ) -> Report:
        self._slots.remove(slot)
        return report_of(
            slot.job,
            outcome,
            Account(seconds=slot.seconds, steps=slot.steps, metrics=slot.metrics),
            checkpoint=saved,
            measured=found,
            rows=self._rows.view(slot.job.evaluation),
        )

    def _save(self, slot: Slot) -> str | None:
        job = slot.job
        if not slot.steps:
            return job.checkpoint
        target = self._inputs.state(job, slot.examples_seen)
        with checkpoint.writing(target) as aside:
            slot.save(aside, self._inputs.model.identity)
        return target

    # What goes wrong

    def _mend(self, error: Exception, tried: Sequence[_Share]) -> Iterator[Report]:
        """Make the next pass smaller, or report the slot that can't go on; raise what no slot caused."""
        if not is_out_of_memory(error):
            yield from self._sort_out(error, tried)
            return
        free_memory()
        smallest = max(min(length(row) for row in share.part.rows) for share in tried)
        if self._tokens > smallest:
            self._tokens //= 2
        elif len(self._slots) > 1:
            self._most = len(self._slots) - 1
            yield self._leave(self._slots[-1], "out of memory with so many trials at once")
        else:
            (slot,) = self._slots
            asked = slot.bytes + int(self._bytes_per_token * self._inputs.max_tokens)
            reason = (
                f"a row of up to {self._inputs.max_tokens} tokens and an adapter of rank "
                f"{slot.adapter.rank} ask for about {asked:,} bytes beside the model, "
                f"{available_bytes(self._shared.device):,} are available: {error}"
            )
            outcome = Outcome(state="infeasible", examples_seen=slot.job.start, error=reason)
            yield self._release(slot, outcome)

    def _sort_out(self, error: Exception, tried: Sequence[_Share]) -> Iterator[Report]:
        """The report of each slot whose rows fail by themselves. Raises if none does."""
        culprits = 0
        for slot, part in tried:
            try:
                for row in part.rows:
                    self._shared.score([Part(slot.adapter, [row])])
            except Exception as own:  # noqa: BLE001 - the worker's boundary: reported, or raised again
                culprits += 1
                yield self._release(slot, failed(slot.job, own))
        if not culprits:
            raise error
