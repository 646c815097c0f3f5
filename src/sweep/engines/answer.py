"""What a job asks for beyond the losses of its rows: replies, and what was learnt by heart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sweep.data.encode import Encoded
from sweep.engines.evaluate import Predicted, in_order, per_token
from sweep.engines.generate import reply_batches
from sweep.engines.inputs import EncodedRows
from sweep.engines.outcome import Measured
from sweep.engines.probe import min_k, probe_batches
from sweep.engines.stream import Stream
from sweep.types import Job, Probe, Reply, RowLoss, RowProbe, Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Found = TypeVar("_Found")
Predictions = Callable[[Sequence[Encoded]], Iterator[Predicted]]


class Trained(NamedTuple):
    """A model as a job has trained it, and its tokenizer, which has a padding token.

    predictions, base_predictions: what it expects of rows, and what it did before any training. base_min_k:
    what `min_k` finds of the latter, as far as a probe has asked for it; measuring adds to it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    predictions: Predictions
    base_predictions: Predictions
    base_min_k: dict[str, float]


def measured(
    job: Job, losses: Sequence[RowLoss], trained: Trained, rows: EncodedRows, *, source: Source
) -> Measured | None:
    """The losses and, where they are finite, what else the job asks; None where it was cancelled."""
    if losses and not math.isfinite(per_token(losses)):
        return Measured(losses)
    replies: tuple[Reply, ...] | None = ()
    probed: tuple[RowProbe, ...] | None = ()
    if job.asked:
        replies = unless_cancelled(reply_batches(trained.model, trained.tokenizer, job.asked), job, source)
    if job.probe and replies is not None:
        probed = unless_cancelled(_probes(job, job.probe, trained, rows), job, source)
    return None if replies is None or probed is None else Measured(losses, replies, probed)


def unless_cancelled(
    batches: Iterable[Mapping[int, _Found]], job: Job, source: Source
) -> tuple[_Found, ...] | None:
    """What was found batch by batch, by its place; None as soon as the job was cancelled."""
    found = []
    for batch in batches:
        if job.id in source.cancelled():
            return None
        found.append(batch)
    return in_order(found)


def _probes(job: Job, probe: Probe, trained: Trained, rows: EncodedRows) -> Iterator[dict[int, RowProbe]]:
    """Of the trained rows, then of the others."""
    start = 0
    held_out = (probe.held_out.split, rows.view(probe.held_out))
    for split, given in ((probe.train.split, _seen(job, probe, rows)), held_out):
        new = [row for row in given if row.row not in trained.base_min_k]
        trained.base_min_k.update(min_k(new, trained.base_predictions(new)))
        batches = probe_batches(
            given,
            trained.predictions(given),
            trained.base_min_k,
            split=split,
            continued=probe.continued,
        )
        for batch in batches:
            yield {start + place: found for place, found in batch.items()}
        start += len(given)


def _seen(job: Job, probe: Probe, rows: EncodedRows) -> list[Encoded]:
    """The rows that the trial saw first, as many as the probe names and the job has come to."""
    trained = rows.view(job.train)
    stream = Stream(len(trained), seed=job.trial.seed)
    return [trained[row] for row in stream.first(min(len(rows.view(probe.train)), job.stop))]
