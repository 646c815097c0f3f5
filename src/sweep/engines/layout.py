"""Rows of many trials end to end on one line of tokens, without padding and without repeated beginnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from sweep.data.encode import Encoded

Integers = np.ndarray[Any, np.dtype[np.int64]]

# A row joins the attention of longer ones if it is at least this share of their length.
_ALIKE = 0.75


class Stretch(NamedTuple):
    """Rows under one adapter. shared: how many tokens, all of them prompt, every row begins with.

    These stand on the line once, in front of the rows: under causal attention they are the same
    for all, as long as nothing is dropped.
    """

    rows: Sequence[Encoded]
    shared: int = 0

    @property
    def tokens(self) -> int:
        """That it takes on the line."""
        return self.shared + sum(length(row) - self.shared for row in self.rows)


class Beginning(NamedTuple):
    """Which rows of an attention group read a shared beginning: `tokens` of the line from `start` on."""

    rows: torch.Tensor
    start: int
    tokens: int


class AttentionGroup(NamedTuple):
    """Rows of about the same length as a rectangle of tokens, for attention alone.

    spread: positions on the line, rows x longest, flat; a row that is shorter repeats a token of
    its own at its end, where no causal query of that row looks. collect: the cells whose outcome
    is used; line: which tokens of the line these are. own, own_line: the same for cells that read a
    token no other cell reads. beginnings: who reads the others.
    """

    rows: int
    longest: int
    spread: torch.Tensor
    collect: torch.Tensor
    line: torch.Tensor
    own: torch.Tensor
    own_line: torch.Tensor
    beginnings: tuple[Beginning, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Tokens of all rows on one line (T), what is learned from them (N), and where attention looks.

    The last token of a row predicts nothing and is left out. input_ids, positions: 1 x T.
    predicts: N indices into T of the tokens that predict a response token; targets: N, that token;
    owners: N, the row it belongs to. order: which token of the line each of the groups' tokens is, group
    after group. padding: share of the attention's cells that only fill a rectangle.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    groups: tuple[AttentionGroup, ...]
    order: torch.Tensor
    padding: float


class _Row(NamedTuple):
    """A row's place: its tokens from `shared` on stand on the line from `start` on."""

    row: Encoded
    start: int
    shared: int
    shared_start: int
    first: bool

    @property
    def reads(self) -> Integers:
        """Where each of its tokens stands on the line."""
        own = np.arange(self.start, self.start + length(self.row) - self.shared)
        return np.concatenate([np.arange(self.shared_start, self.shared_start + self.shared), own])


def length(row: Encoded) -> int:
    """Tokens of a row that predict something."""
    return len(row.input_ids) - 1


def lay_out(stretches: Sequence[Stretch], device: torch.device) -> Layout:
    """The stretches on one line, in the order given."""
    places = list(_places(stretches))
    ids, positions = _tokens(places)
    groups, cells = _attention_groups(places, device)
    used = sum(length(place.row) ** 2 for place in places)
    learned = [place.row.response_tokens for place in places]
    return Layout(
        input_ids=_tensor(ids, device)[None],
        positions=_tensor(positions, device)[None],
        predicts=_tensor(np.concatenate([_predicts(place) for place in places]), device),
        targets=_tensor(
            np.concatenate([_ids(place.row)[place.row.response_start :] for place in places]), device
        ),
        owners=_tensor(np.repeat(np.arange(len(places)), learned), device),
        groups=groups,
        order=torch.cat([group.line for group in groups]),
        padding=1.0 - used / cells,
    )


def _places(stretches: Sequence[Stretch]) -> Iterable[_Row]:
    start = 0
    for rows, shared in stretches:
        shared_start = start
        start += shared
        for number, row in enumerate(rows):
            yield _Row(row, start, shared, shared_start, number == 0)
            start += length(row) - shared


def _tokens(places: Sequence[_Row]) -> tuple[Integers, Integers]:
    """Ids and positions along the line."""
    ids, positions = [], []
    for place in places:
        begin = 0 if place.first else place.shared
        ids.append(_ids(place.row)[begin:-1])
        positions.append(np.arange(begin, length(place.row)))
    return np.concatenate(ids), np.concatenate(positions)


def _predicts(place: _Row) -> Integers:
    return place.start - place.shared + np.arange(place.row.response_start - 1, length(place.row))


def _attention_groups(places: Sequence[_Row], device: torch.device) -> tuple[tuple[AttentionGroup, ...], int]:
    """Rows by length, longest first, and the cells of all rectangles."""
    members: list[list[_Row]] = []
    for place in sorted(places, key=lambda place: -length(place.row)):
        if members and length(place.row) >= _ALIKE * length(members[-1][0].row):
            members[-1].append(place)
        else:
            members.append([place])
    cells = sum(len(rows) * length(rows[0].row) ** 2 for rows in members)
    return tuple(_group(rows, device) for rows in members), cells


def _group(places: list[_Row], device: torch.device) -> AttentionGroup:
    longest = length(places[0].row)
    spread = np.empty((len(places), longest), dtype=np.int64)
    used, own = np.zeros(spread.shape, dtype=bool), np.zeros(spread.shape, dtype=bool)
    readers: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        reads = place.reads
        spread[number] = reads[-1]
        spread[number, : len(reads)] = reads
        own[number, place.shared : len(reads)] = True
        used[number, 0 if place.first else place.shared : len(reads)] = True
        if place.shared:
            readers.setdefault(place.shared_start, []).append(number)
    shared = {place.shared_start: place.shared for place in places}
    return AttentionGroup(
        rows=len(places),
        longest=longest,
        spread=_tensor(spread.reshape(-1), device),
        collect=_tensor(np.flatnonzero(used), device),
        line=_tensor(spread[used], device),
        own=_tensor(np.flatnonzero(own), device),
        own_line=_tensor(spread[own], device),
        beginnings=tuple(
            Beginning(_tensor(np.asarray(rows), device), start, shared[start])
            for start, rows in readers.items()
        ),
    )


def _ids(row: Encoded) -> Integers:
    return np.asarray(row.input_ids, dtype=np.int64)


def _tensor(values: Integers, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)
