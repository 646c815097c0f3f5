"""What a job asks for beyond the losses of its rows: replies, and what was learnt by heart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from sweep.data.encode import Encoded
from sweep.engines.evaluate import in_order, per_token
from sweep.engines.generate import reply_batches
from sweep.engines.inputs import EncodedRows
from sweep.engines.model import Base
from sweep.engines.outcome import Measured
from sweep.engines.probe import probe_batches
from sweep.engines.stream import Stream
from sweep.types import Job, Probe, Reply, RowLoss, RowProbe, Source

_Found = TypeVar("_Found")


def measured(
    job: Job, losses: Sequence[RowLoss], base: Base, rows: EncodedRows, *, tokens: int, source: Source
) -> Measured | None:
    """The losses and, where they are finite, what else the job asks; None where it was cancelled meanwhile.

    base: as the job has trained it. tokens: of a batch of the probe's rows.
    """
    if losses and not math.isfinite(per_token(losses)):
        return Measured(losses)
    replies: tuple[Reply, ...] | None = ()
    probed: tuple[RowProbe, ...] | None = ()
    if job.asked:
        replies = unless_cancelled(reply_batches(*base, job.asked), job, source)
    if job.probe and replies is not None:
        probed = unless_cancelled(_probes(job, job.probe, base, rows, tokens), job, source)
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


def _probes(
    job: Job, probe: Probe, base: Base, rows: EncodedRows, tokens: int
) -> Iterator[dict[int, RowProbe]]:
    """Of the trained rows, then of the others."""
    start = 0
    held_out = (probe.held_out.split, rows.view(probe.held_out))
    for split, given in ((probe.train.split, _seen(job, probe, rows)), held_out):
        batches = probe_batches(
            base.model,
            given,
            split=split,
            continued=probe.continued,
            pad_token=cast(int, base.tokenizer.pad_token_id),
            tokens_per_batch=tokens,
        )
        for batch in batches:
            yield {start + place: found for place, found in batch.items()}
        start += len(given)


def _seen(job: Job, probe: Probe, rows: EncodedRows) -> list[Encoded]:
    """The rows that the trial saw first, as many as the probe names and the job has come to."""
    trained = rows.view(job.train)
    stream = Stream(len(trained), seed=job.trial.seed)
    return [trained[row] for row in stream.first(min(len(rows.view(probe.train)), job.stop))]
