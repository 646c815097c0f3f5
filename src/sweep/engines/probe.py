"""What a model knows of rows by heart: its least likely tokens, and whether it recites the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from sweep.data.encode import Encoded
from sweep.engines.evaluate import Predicted
from sweep.engines.nats import nats
from sweep.types import RowProbe, Split

# The least likely fifth of the tokens: arXiv:2310.16789, section 3.
_LEAST_LIKELY = 5
_CONTINUED = 16
_FEWEST_CONTINUED = 4


def probe_batches(
    rows: Sequence[Encoded],
    predicted: Iterable[Predicted],
    base_min_k: Mapping[str, float],
    *,
    split: Split,
    continued: int,
) -> Iterator[dict[int, RowProbe]]:
    """The rows' probes batch by batch, by their positions; `continued`: of the first so many, `verbatim` too.

    predicted: what the model expects of the rows. base_min_k: as `min_k` finds it for the base model.
    Nothing is generated. A greedy continuation repeats a row's next tokens exactly if each of them is
    the likeliest after the row's own text before it: up to the first that is not, that text is what
    the continuation itself has written.
    """
    for batch in predicted:
        by_row = nats(batch.logits, batch.targets).split(batch.counts)
        repeats = (batch.logits.argmax(dim=-1) == batch.targets).split(batch.counts)
        yield {
            i: RowProbe(
                row=rows[i].row,
                split=split,
                nats=float(of_row.sum()),
                tokens=len(of_row),
                min_k=_least_likely(of_row),
                base_min_k=base_min_k[rows[i].row],
                verbatim=_verbatim(repeated) if i < continued else None,
            )
            for i, of_row, repeated in zip(batch.places, by_row, repeats, strict=True)
        }


def min_k(rows: Sequence[Encoded], predicted: Iterable[Predicted]) -> dict[str, float]:
    """By row: mean log-probability, in nats, of the least likely fifth of its response's tokens."""
    return {
        rows[i].row: _least_likely(of_row)
        for batch in predicted
        for i, of_row in zip(batch.places, nats(batch.logits, batch.targets).split(batch.counts), strict=True)
    }


def _least_likely(nats_of_row: torch.Tensor) -> float:
    return -float(nats_of_row.topk(max(1, len(nats_of_row) // _LEAST_LIKELY)).values.mean())


def _verbatim(repeated: torch.Tensor) -> bool | None:
    """Whether the tokens after the middle are repeated, None where they are too few to tell."""
    after = repeated[len(repeated) // 2 :][:_CONTINUED]
    return bool(after.all()) if len(after) >= _FEWEST_CONTINUED else None
