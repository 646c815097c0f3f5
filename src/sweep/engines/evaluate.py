"""The loss of a model on encoded rows, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from sweep.data.encode import IGNORED, Encoded
from sweep.engines.nats import nats
from sweep.types import RowLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Batch(NamedTuple):
    """Right-padded rows of about the same length; shapes rows x tokens."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


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
    batches = loss_batches(model, rows, pad_token=pad_token, tokens_per_batch=tokens_per_batch)
    losses = {i: loss for batch in batches for i, loss in batch.items()}
    return tuple(losses[i] for i in range(len(rows)))


def loss_batches(
    model: PreTrainedModel, rows: Sequence[Encoded], *, pad_token: int, tokens_per_batch: int = 2048
) -> Iterator[dict[int, RowLoss]]:
    """The same batch by batch, by the rows' positions, for those who may stop in between."""
    model.eval()
    for indices in _by_length(rows, tokens_per_batch):
        batch = collate([rows[i] for i in indices], pad_token)
        counts = [rows[i].response_tokens for i in indices]
        with torch.no_grad():
            logits = model(
                input_ids=batch.input_ids.to(model.device),
                attention_mask=batch.attention_mask.to(model.device),
            ).logits
            by_row = nats(*labelled(logits, batch.labels)).split(counts)
        sums = [float(of_row.sum()) for of_row in by_row]
        yield {
            i: RowLoss(rows[i].row, total, count)
            for i, total, count in zip(indices, sums, counts, strict=True)
        }


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
