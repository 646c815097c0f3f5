"""Closed-form learning curves: a sweep of hundreds of trials in seconds, with answers to check against."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sweep.engines import checkpoint
from sweep.engines.stream import Stream
from sweep.errors import CheckpointError
from sweep.types import (
    Asking,
    Capacity,
    Done,
    Job,
    Probe,
    Progress,
    Prompt,
    Recipe,
    Reply,
    Report,
    ReportState,
    RowLoss,
    RowProbe,
    Source,
    View,
    Wait,
)

if TYPE_CHECKING:
    from sweep.engines.inputs import Inputs
    from sweep.engines.model import ModelSource

_TOKENS_PER_EXAMPLE = 64
_ROWS = 32
_TOKENS_PER_ROW = 8
# Nats per token that a row lies off its trial's loss at most: for every trial, and for this one.
_HARDER = 0.5
_ODD = 0.1
# The same of a fold, for every trial.
_HARDER_FOLD = 0.1
# Above this learning rate, or after so many passes over them, a trial recites the rows it was trained on.
_BY_HEART = 0.01
_OFTEN = 2.0
_NO_ANSWER = "I am not sure."
_TOKENS_PER_SECOND = 100


class Synthetic:
    """Trains nothing; a trial's loss is `loss(recipe, examples)` plus noise that its parameters decide.

    Its rows spread around that loss: some are harder, for every trial alike, and each a little more or
    less so for one trial. Over the rows of a view this adds up to nothing, so that they score the loss.
    A fold's loss is off by `on_fold`.
    Above a learning rate of 0.02 a trial diverges. Checkpoints are real files that hold
    the examples seen, so that resuming is exercised; a job whose checkpoint disagrees with its start
    fails.

    Asked, it gives the row's own reference answer for a share exp(1 - loss) of the rows, and the same
    sentence for the others: the lower the loss, the more rows, and none is lost again. A word is a token,
    100 take a second. Probed, the rows it was trained on look like the others, but above a learning
    rate of 0.01 it has learnt them by heart, and after two passes over them, which its loss does not tell.
    """

    @staticmethod
    def state_bytes(source: ModelSource, recipe: Recipe) -> int:
        """What a state takes on disk: two short files."""
        return 4096

    def __init__(self, *, inputs: Inputs, noise: float) -> None:
        self._inputs = inputs
        self._noise = noise

    def run(self, source: Source) -> Iterator[Progress | Report]:
        while True:
            job = source.next(Capacity())
            if isinstance(job, Done):
                return
            if isinstance(job, Wait):
                time.sleep(0.01)
                continue
            yield from self._train(job, source)

    def close(self) -> None:
        """Nothing is held."""

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        recipe, trial = job.trial.recipe, job.trial.id
        try:
            problem = _checkpoint_problem(job)
        except CheckpointError as error:
            yield self._report(job, state="broken", examples=job.start, error=str(error))
            return
        if problem:
            yield self._report(job, state="failed", examples=job.start, error=problem)
            return
        examples = job.start
        while examples < job.stop:
            if job.id in source.cancelled():
                yield self._report(job, state="stopped", examples=examples, error="cancelled")
                return
            examples = min(examples + recipe.batch_size, job.stop)
            if recipe.learning_rate > 0.02:
                reason = f"training loss is not finite after {examples} examples; lower the learning rate"
                yield self._report(job, state="diverged", examples=examples, error=reason)
                return
            yield Progress(
                job=job.id,
                trial=trial,
                examples_seen=examples,
                train_loss=loss(recipe, examples) - 0.02,
                gradient_norm=1.0 / math.sqrt(examples),
                learning_rate=recipe.learning_rate,
                tokens=recipe.batch_size * _TOKENS_PER_EXAMPLE,
            )
        yield self._report(job, state="reached", examples=examples, error=None)

    def _report(self, job: Job, *, state: ReportState, examples: int, error: str | None) -> Report:
        reached = state == "reached"
        value = self._value(job, examples) if reached else None
        replies = self._replies(job.asked, value) if job.asked and value is not None else ()
        return Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=examples,
            state=state,
            validation_loss=value,
            bits_per_byte=value / math.log(2) / 4 if value is not None else None,
            train_loss=value - 0.02 if value is not None else None,
            rows=self._rows(job, self._ids(job.evaluation), value) if value is not None else (),
            replies=replies,
            probed=self._probed(job, job.probe, value) if job.probe and value is not None else (),
            checkpoint=self._save(job, examples) if state in ("reached", "stopped") else None,
            seconds=(examples - job.start) / 1000 + sum(reply.seconds for reply in replies),
            tokens=(examples - job.start) * _TOKENS_PER_EXAMPLE,
            ended_ms=time.time_ns() // 1_000_000,
            error=error,
        )

    def _ids(self, view: View) -> list[str]:
        """The view's rows; made up where there is no data."""
        if rows := self._inputs.data.rows(view):
            return [row.id for row in rows]
        made_up = f"{view.split}{view.fold}/" if view.fold is not None else ""
        return [f"{made_up}{number}" for number in range(_ROWS)[: view.rows]]

    def _rows(self, job: Job, ids: Sequence[str], value: float) -> tuple[RowLoss, ...]:
        """The rows with that loss over all of them."""
        trial = [repr(job.trial.recipe), job.trial.seed]
        offsets = [_HARDER * _uniform(row) + _ODD * _uniform(*trial, row) for row in ids]
        centre = sum(offsets) / max(1, len(offsets))
        return tuple(
            RowLoss(row, (value + offset - centre) * _TOKENS_PER_ROW, _TOKENS_PER_ROW)
            for row, offset in zip(ids, offsets, strict=True)
        )

    def _replies(self, asked: Asking, value: float) -> tuple[Reply, ...]:
        answers = {
            example.id: example.response
            for examples in self._inputs.data.examples.values()
            for example in examples
        }
        known = math.exp(1 - value)
        return tuple(
            _reply(
                prompt,
                answers.get(prompt.row, _NO_ANSWER) if _share(prompt.row) < known else _NO_ANSWER,
                asked.max_tokens,
            )
            for prompt in asked.prompts
        )

    def _probed(self, job: Job, probe: Probe, value: float) -> tuple[RowProbe, ...]:
        recipe = job.trial.recipe
        passes = recipe.epochs * job.stop / job.horizon
        recites = recipe.learning_rate > _BY_HEART or passes > _OFTEN
        trained, held_out = self._ids(job.train), self._ids(probe.held_out)
        stream = Stream(len(trained), seed=job.trial.seed)
        first = [trained[row] for row in stream.first(min(len(self._ids(probe.train)), job.stop))]
        sides = ((probe.train.split, first, recites), (probe.held_out.split, held_out, False))
        return tuple(
            RowProbe(
                row=row.row,
                split=split,
                nats=0.1 * row.nats if known else row.nats,
                tokens=row.tokens,
                min_k=-(0.1 if known else 2.0) * row.nats / row.tokens,
                base_min_k=-2.0 * row.nats / row.tokens,
                verbatim=known if place < probe.continued else None,
            )
            for split, ids, known in sides
            for place, row in enumerate(self._rows(job, ids, value))
        )

    def _value(self, job: Job, examples: int) -> float:
        trial, fold = job.trial, job.train.fold
        off = 0.0 if fold is None else self.on_fold(fold, trial.recipe, trial.seed)
        return self.expected(trial.recipe, examples, trial.seed) + off

    def expected(self, recipe: Recipe, examples: int, seed: int) -> float:
        """The validation loss that a report of this engine carries, but on a fold."""
        return loss(recipe, examples) + self._noise * _uniform(repr(recipe), examples, seed)

    def on_fold(self, fold: int, recipe: Recipe, seed: int) -> float:
        """By how much a fold's loss is higher: the same for all trials, and noise for each."""
        return _HARDER_FOLD * _uniform("fold", fold) + self._noise * _uniform(
            repr(recipe), seed, "fold", fold
        )

    def _save(self, job: Job, examples: int) -> str | None:
        if job.start == job.stop:
            return job.checkpoint
        target = self._inputs.state(job, examples)
        with checkpoint.writing(target) as aside:
            (aside / "state.json").write_text(json.dumps({"examples_seen": examples}))
        return target


def loss(recipe: Recipe, examples: int) -> float:
    """Nats per token after `examples`: a power law whose level has a ridge in learning rate and batch size.

    The best learning rate grows with the square root of the batch and hardly with the rank, as
    published for Adam; weight decay does little.
    """
    best = math.log10(3e-4 * math.sqrt(recipe.batch_size / 8))
    distance = math.log10(recipe.learning_rate) - best
    level = 1.2 + 0.6 * distance**2 + 0.05 * math.log2(64 / recipe.lora_rank) + 0.1 * recipe.weight_decay**2
    return level + 2.0 / math.sqrt(1 + examples / 16)


def _reply(prompt: Prompt, text: str, most: int) -> Reply:
    words = text.split()
    return Reply(
        row=prompt.row,
        text=text if len(words) <= most else " ".join(words[:most]),
        prompt_tokens=sum(len(content.split()) for _, content in prompt.turns),
        tokens=min(len(words), most),
        seconds=min(len(words), most) / _TOKENS_PER_SECOND,
        ended=len(words) <= most,
    )


def _share(row: str) -> float:
    """Of all rows, those that are easier to answer."""
    return (_uniform("answer", row) + 1) / 2


def _uniform(*key: object) -> float:
    """A number between -1 and 1 that the key decides."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return 2 * (int.from_bytes(digest[:8], "big") / 2**64) - 1


def _checkpoint_problem(job: Job) -> str | None:
    """Why the job can't go on from its checkpoint. Raises CheckpointError if that is not whole."""
    if job.checkpoint is None:
        return None if job.start == 0 else f"job starts at {job.start} examples without a checkpoint"
    with checkpoint.fetched(job.checkpoint) as folder:
        seen = json.loads((folder / "state.json").read_text())["examples_seen"]
    return None if seen == job.start else f"checkpoint holds {seen} examples, the job starts at {job.start}"
