"""The loss of a model on encoded rows, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from sweep.data.encode import IGNORED, Encoded
from sweep.engines.nats import nats
from sweep.types import RowLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Found = TypeVar("_Found")


class Batch(NamedTuple):
    """Right-padded rows of about the same length; shapes rows x tokens."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


class Predicted(NamedTuple):
    """What a model expects at every response token of some rows, row after row.

    places: of the rows among those given. counts: response tokens of each. logits: of shape tokens x
    vocabulary; targets: the tokens themselves.
    """

    places: list[int]
    counts: list[int]
    logits: torch.Tensor
    targets: torch.Tensor


def collate(rows: Sequence[Encoded], pad_token: int) -> Batch:
    """The rows as one batch, padded to the longest; labels are `IGNORED` outside the response."""
    longest = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[i, :length] = torch.as_tensor(row.input_ids)
        attention_mask[i, :length] = 1
        labels[i, row.response_start : length] = input_ids[i, row.response_start : length]
    return Batch(input_ids, attention_mask, labels)


def row_losses(
    model: PreTrainedModel, rows: Sequence[Encoded], *, pad_token: int, tokens_per_batch: int = 2048
) -> tuple[RowLoss, ...]:
    """Each row's summed negative log-likelihood over its response, in the order given.

    Rows are batched by length, so that little is padded; the model is put into evaluation mode.
    """
    return in_order(loss_batches(model, rows, pad_token=pad_token, tokens_per_batch=tokens_per_batch))


def loss_batches(
    model: PreTrainedModel, rows: Sequence[Encoded], *, pad_token: int, tokens_per_batch: int = 2048
) -> Iterator[dict[int, RowLoss]]:
    """The same batch by batch, by the rows' positions, for those who may stop in between."""
    for batch in predictions(model, rows, pad_token=pad_token, tokens_per_batch=tokens_per_batch):
        by_row = nats(batch.logits, batch.targets).split(batch.counts)
        yield {
            i: RowLoss(rows[i].row, float(of_row.sum()), count)
            for i, of_row, count in zip(batch.places, by_row, batch.counts, strict=True)
        }


def predictions(
    model: PreTrainedModel, rows: Sequence[Encoded], *, pad_token: int, tokens_per_batch: int
) -> Iterator[Predicted]:
    """What the model expects of the rows, shortest first; it is put into evaluation mode."""
    model.eval()
    for places in _by_length(rows, tokens_per_batch):
        batch = collate([rows[i] for i in places], pad_token)
        with torch.no_grad():
            logits = model(
                input_ids=batch.input_ids.to(model.device),
                attention_mask=batch.attention_mask.to(model.device),
            ).logits
        counts = [rows[i].response_tokens for i in places]
        yield Predicted(places, counts, *labelled(logits, batch.labels))


def in_order(batches: Iterable[Mapping[int, _Found]]) -> tuple[_Found, ...]:
    """What was found batch by batch, by its place."""
    found = {place: one for batch in batches for place, one in batch.items()}
    return tuple(found[place] for place in range(len(found)))


def labelled(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict a response token, and that token, row by row."""
    targets = labels[:, 1:].to(logits.device)
    kept = targets != IGNORED
    return logits[:, :-1][kept], targets[kept]


def per_token(losses: Sequence[RowLoss]) -> float:
    """Nats per response token over all rows."""
    return sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses)


def bits_per_byte(losses: Sequence[RowLoss], rows: Sequence[Encoded]) -> float:
    """Bits per byte of response text over all rows; end-of-turn tokens cost bits but have no bytes."""
    return sum(loss.nats for loss in losses) / math.log(2) / sum(row.response_bytes for row in rows)


def _by_length(rows: Sequence[Encoded], tokens_per_batch: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids)):
        if batch and (len(batch) + 1) * len(rows[index].input_ids) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
