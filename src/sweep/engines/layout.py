"""Rows of many trials end to end on one line of tokens, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from sweep.data.encode import Encoded

# A row joins the attention of longer ones if it is at least this share of their length.
_ALIKE = 0.75


class AttentionGroup(NamedTuple):
    """Rows of about the same length as a rectangle of tokens, for attention alone.

    spread: positions on the line, rows x longest, flat; a row that is shorter repeats its own first
    token at its end, where no causal query of that row looks. collect: where the line's tokens
    stand in the rectangle. line: which tokens of the line these are.
    """

    rows: int
    longest: int
    spread: torch.Tensor
    collect: torch.Tensor
    line: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Tokens of all rows on one line (T), what is learned from them (N), and where attention looks.

    The last token of a row predicts nothing and is left out. input_ids, positions: 1 x T.
    predicts: N indices into T of the tokens that predict a response token; targets: N, that token;
    owners: N, the row it belongs to. starts: tokens at which each row begins, and T at the end.
    padding: share of the attention's cells that only fill a rectangle.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    starts: tuple[int, ...]
    groups: tuple[AttentionGroup, ...]
    padding: float

    @property
    def tokens(self) -> int:
        """T."""
        return self.starts[-1]


def length(row: Encoded) -> int:
    """Tokens that a row takes on the line."""
    return len(row.input_ids) - 1


def lay_out(rows: Sequence[Encoded], device: torch.device) -> Layout:
    """The rows on one line, in the order given."""
    lengths = [length(row) for row in rows]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([np.asarray(row.input_ids, dtype=np.int64)[:-1] for row in rows])
    targets = np.concatenate(
        [np.asarray(row.input_ids, dtype=np.int64)[row.response_start :] for row in rows]
    )
    predicts = np.concatenate(
        [
            start + np.arange(row.response_start - 1, count)
            for row, start, count in zip(rows, starts, lengths, strict=False)
        ]
    )
    learned = [count - row.response_start + 1 for row, count in zip(rows, lengths, strict=True)]
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    groups, cells = _attention_groups(starts, lengths, device)
    return Layout(
        input_ids=_tensor(ids, device)[None],
        positions=_tensor(positions, device)[None],
        predicts=_tensor(predicts, device),
        targets=_tensor(targets, device),
        owners=_tensor(np.repeat(np.arange(len(rows)), learned), device),
        starts=tuple(int(start) for start in starts),
        groups=groups,
        padding=1.0 - sum(count * count for count in lengths) / cells,
    )


def _attention_groups(
    starts: np.ndarray, lengths: Sequence[int], device: torch.device
) -> tuple[tuple[AttentionGroup, ...], int]:
    """Rows by length, longest first, and the cells of all rectangles."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    members: list[list[int]] = []
    for row in order:
        if members and lengths[row] >= _ALIKE * lengths[members[-1][0]]:
            members[-1].append(row)
        else:
            members.append([row])
    cells = sum(len(rows) * lengths[rows[0]] ** 2 for rows in members)
    return tuple(_group(rows, starts, lengths, device) for rows in members), cells


def _group(
    rows: list[int], starts: np.ndarray, lengths: Sequence[int], device: torch.device
) -> AttentionGroup:
    longest = lengths[rows[0]]
    columns = np.arange(longest)
    valid = columns[None] < np.asarray([lengths[row] for row in rows])[:, None]
    begins = np.asarray([starts[row] for row in rows])[:, None]
    spread = begins + np.where(valid, columns[None], 0)
    return AttentionGroup(
        rows=len(rows),
        longest=longest,
        spread=_tensor(spread.reshape(-1), device),
        collect=_tensor(np.flatnonzero(valid), device),
        line=_tensor(spread[valid], device),
    )


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)
