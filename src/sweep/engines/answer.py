"""What a job asks for beyond the losses of its rows: replies, and what was learnt by heart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from sweep.engines.evaluate import in_order, per_token
from sweep.engines.generate import reply_batches
from sweep.engines.inputs import EncodedRows
from sweep.engines.model import Base
from sweep.engines.outcome import Measured
from sweep.engines.probe import probe_batches
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
        probed = unless_cancelled(_probes(job.probe, base, rows, tokens), job, source)
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


def _probes(probe: Probe, base: Base, rows: EncodedRows, tokens: int) -> Iterator[dict[int, RowProbe]]:
    """Of the trained rows, then of the others."""
    start = 0
    for view in (probe.train, probe.held_out):
        given = rows.view(view)
        batches = probe_batches(
            base.model,
            given,
            split=view.split,
            continued=probe.continued,
            pad_token=cast(int, base.tokenizer.pad_token_id),
            tokens_per_batch=tokens,
        )
        for batch in batches:
            yield {start + place: found for place, found in batch.items()}
        start += len(given)
