"""Examples dealt to train, validation, confirm, test and golden, look-alikes kept together."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from sweep.data.example import Example
from sweep.data.source import SplitShares
from sweep.errors import DataError
from sweep.types import SPLITS, Split, View

MIN_ROWS = 50
# Share of the rows in another split than intended from which grouping by answer is given up.
MISPLACED = 0.05

PIECE = 5
# Share of a text's pieces, rarest first, that pairs must have in common to be compared: 5,000 texts
# of 900 characters take 1.9 s with 0.02 to 0.1, 14 s with a single piece.
MUST_SHARE = 0.05
CANDIDATES_AT_ONCE = 1 << 22
PIECES_AT_ONCE = 1 << 22

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The examples by split, each split in a seeded random order, so that its first rows are a sample.

    groups: row id to group; a group lies in one split. fingerprint: of the rows' content (system
    prompts too, ids not), their splits and order. notes: what a person should know about the cut.
    folds: row id to fold where the train split is dealt into such; then there is no validation split.
    """

    examples: Mapping[Split, tuple[Example, ...]]
    groups: Mapping[str, int]
    fingerprint: str
    notes: tuple[str, ...]
    folds: Mapping[str, int] = field(default_factory=dict)

    def rows(self, view: View) -> tuple[Example, ...]:
        """The view's rows; none of a split that is not there."""
        held = self.examples.get(view.home, ())
        return tuple(held[place] for place in self.places(view))

    def places(self, view: View) -> Sequence[int]:
        """Where the view's rows stand in the split that holds them."""
        rows = self.examples.get(view.home, ())
        if view.fold is None:
            return range(len(rows))[: view.rows]
        inside = view.split == "validation"
        places = [i for i, row in enumerate(rows) if (self.folds[row.id] == view.fold) == inside]
        return places[: view.rows]

    def content_of(self, name: Split) -> str:
        """A fingerprint of one split's rows and their order, whatever the others hold."""
        return digest([_content(row) for row in self.examples[name]])


def split(examples: Sequence[Example], shares: SplitShares, *, seed: int) -> DataSet:
    """The examples dealt to all splits, as near to the shares as groups allow, within each intent too.

    Rows with near-identical prompts or the same answer form a group. Where few answers serve many
    rows, prompts alone decide, and a note says so. The result depends on the rows' content and the
    seed, not on their order in the file. Groups are exact for any number of rows: memory
    grows with the text, time with the pairs of alike rows (100,000 short prompts: 22 s). Raises
    DataError below 50 rows or where a split stays empty.
    """
    if len(examples) < MIN_ROWS:
        raise DataError(
            f"data: there are {len(examples)} rows; at least {MIN_ROWS} are needed for five splits. "
            "Add rows, or raise data.max_rows."
        )
    prompts = near_identical([normalised(row.prompt) for row in examples], shares.group_similarity)
    answers = _codes([normalised(row.response) for row in examples])
    wanted = np.array([getattr(shares, name) for name in SPLITS])
    intents = [row.intent or "" for row in examples]
    ranks = shuffled(examples, salt=f"{seed}/deal")

    groups = prompts
    dealt = deal(groups, intents, ranks=ranks, wanted=wanted)
    misplaced = _misplaced(dealt, intents, wanted)
    both = _joined(prompts, answers)
    dealt_both = deal(both, intents, ranks=ranks, wanted=wanted)
    notes = []
    every_split = np.bincount(dealt_both, minlength=len(SPLITS)).all()
    # Against what prompts alone cost: few rows per intent misplace some whatever the groups are.
    if every_split and _misplaced(dealt_both, intents, wanted) <= misplaced + MISPLACED:
        groups, dealt = both, dealt_both
    else:
        notes.append(_answers_note(answers))
    counts = np.bincount(dealt, minlength=len(SPLITS))
    largest = int(np.bincount(groups).max())
    obtained = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts, strict=True))
    if not counts.all():
        raise DataError(
            f"data.split: {len(examples)} rows form {len(set(groups))} groups of look-alikes, the largest of "
            f"{largest} rows, which leave a split empty ({obtained}); each must hold a row. Add rows, raise "
            f"that split's share, or raise data.split.group_similarity={shares.group_similarity}."
        )
    if np.abs(counts / len(examples) - wanted).sum() / 2 > MISPLACED:
        notes.append(
            f"The splits are far from their shares ({obtained}), because up to {largest} look-alike rows "
            f"stay together. Delete repeats, or raise data.split.group_similarity={shares.group_similarity}."
        )
    order = np.argsort(shuffled(examples, salt=f"{seed}/order"))
    cut = {
        name: tuple(examples[i] for i in order if dealt[i] == number) for number, name in enumerate(SPLITS)
    }
    return DataSet(
        examples=cut,
        groups=dict(zip([examples[i].id for i in order], _codes(groups[order]).tolist(), strict=True)),
        fingerprint=_fingerprint(cut),
        notes=tuple(notes),
    )


def normalised(text: str) -> str:
    """The text in lower case, its blanks single, each number 0."""
    return re.sub(r"\d+", "0", " ".join(text.lower().split()))


def _answers_note(answers: Ints) -> str:
    counts = np.bincount(answers)
    return (
        f"{answers.size} rows share {counts.size} distinct answers, one of them {counts.max()} times. "
        "Keeping each answer in one split would miss the shares, so only near-identical prompts were kept "
        "together: held-out rows repeat the train split's answers, and their loss flatters a model "
        "that learnt them by heart."
    )


# Order and content


def _content(row: Example) -> str:
    turns = [[turn.role, turn.content] for turn in row.messages]
    return json.dumps([turns, row.intent, row.required, row.forbidden, sorted(row.slices.items())])


def shuffled(examples: Sequence[Example], *, salt: str) -> Ints:
    """Each row's place in a shuffle that salt and content fix; ids only part rows that are equal."""

    # Without the system prompt: editing it must not deal every row anew.
    def key(row: Example) -> tuple[bytes, str, str]:
        text = json.dumps([salt, row.prompt, row.response])
        return hashlib.sha256(text.encode()).digest(), _content(row), row.id

    keys = [key(row) for row in examples]
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return ranks


def _fingerprint(cut: Mapping[Split, Sequence[Example]]) -> str:
    return digest([[name, [_content(row) for row in cut[name]]] for name in SPLITS])


def digest(content: object) -> str:
    """16 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# Dealing


def deal(groups: Ints, intents: Sequence[str], *, ranks: Ints, wanted: npt.NDArray[np.float64]) -> Ints:
    """The number of each row's split. Large groups first, since small ones can still fill gaps."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    by_intent: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        rows.sort(key=ranks.__getitem__)
        counts = Counter(intents[row] for row in rows)
        by_intent[min(counts, key=lambda intent: (-counts[intent], intent))].append(rows)

    dealt = np.empty(groups.size, dtype=np.int64)
    taken = np.zeros(wanted.size)
    for piles in sorted(by_intent.values(), key=lambda piles: min(ranks[rows[0]] for rows in piles)):
        intent_left = wanted * sum(len(rows) for rows in piles)
        for rows in sorted(piles, key=lambda rows: (-len(rows), ranks[rows[0]])):
            size = len(rows)
            left = wanted * groups.size - taken
            fits = (intent_left > 0) & (left >= size / 2)
            # Behind by now, not by the end: else a small share gets its rows from the last intents only.
            behind = wanted * (taken.sum() + size) - taken
            choice = int(np.argmax(np.where(fits, behind, -np.inf)) if fits.any() else np.argmax(left))
            dealt[rows] = choice
            taken[choice] += size
            intent_left[choice] -= size
    return dealt


def _misplaced(dealt: Ints, intents: Sequence[str], wanted: npt.NDArray[np.float64]) -> float:
    """Share of the rows that would have to move for every intent to meet the shares."""
    codes = _codes(intents)
    counts = np.zeros((int(codes.max()) + 1, wanted.size))
    np.add.at(counts, (codes, dealt), 1)
    return float(np.abs(counts - counts.sum(axis=1, keepdims=True) * wanted).sum() / 2 / dealt.size)


# Groups


def near_identical(texts: Sequence[str], similarity: float) -> Ints:
    """A group number per text: chains of texts whose piece sets overlap by `similarity` (Jaccard) or more.

    Exact. Two sets x that overlap by t share k of their |x| - ceil(t |x|) + k rarest pieces, so only
    such pairs are compared, and pairs already in one group are not. Source: Wang, Li, Feng 2012,
    "Can we beat the prefix filtering?", lemma 1.
    """
    codes = _codes(texts)
    pieces, sizes = _pieces(list(dict.fromkeys(texts)))
    must_share = np.ceil(sizes * MUST_SHARE).astype(np.int64)
    rarest = _rarest(pieces, sizes - np.ceil(similarity * sizes - 1e-9).astype(np.int64) + must_share)
    labels = np.arange(sizes.size)
    pending = np.arange(sizes.size)
    block_rows = max(1, min(256, CANDIDATES_AT_ONCE // sizes.size))
    while pending.size:
        # A group of many pending rows goes at once, against the rows outside: boilerplate in every
        # prompt would otherwise cost all pairs.
        counts = np.bincount(labels[pending])
        together = labels[pending] == counts.argmax()
        if counts.max() > block_rows:
            block, pending = pending[together], pending[~together]
            others = pending
        else:
            block, others = pending[:block_rows], pending
            pending = pending[block_rows:]
        for start in range(0, block.size if others.size else 0, block_rows):
            rows = block[start : start + block_rows]
            found = (rarest[rows] @ rarest[others].T).tocoo()
            left, right = rows[found.row], others[found.col]
            fits = found.data >= np.minimum(must_share[left], must_share[right])
            labels = _merged(labels, pieces, left=left[fits], right=right[fits], similarity=similarity)
    return labels[codes]


def _pieces(texts: Sequence[str]) -> tuple[sparse.csr_array, Ints]:
    """Which text holds which piece, as ones, the rarest pieces first; and each text's number of pieces."""
    columns: dict[str, int] = {}
    # Narrow numbers, one after the other: as lists, the pieces of 100,000 prompts take four times the memory.
    held = array("i")
    sizes = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        own = {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}
        held.extend(columns.setdefault(piece, len(columns)) for piece in own)
        sizes[row] = len(own)
    found = np.frombuffer(held, dtype=np.int32)
    rarity = np.empty(len(columns), dtype=np.int32)
    rarity[np.argsort(np.bincount(found), kind="stable")] = np.arange(len(columns), dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    pieces = sparse.csr_array(
        (np.ones(found.size, np.int32), rarity[found], starts), (sizes.size, len(columns))
    )
    pieces.sort_indices()
    return pieces, sizes


def _rarest(pieces: sparse.csr_array, keep: Ints) -> sparse.csr_array:
    """The first `keep` pieces of each text."""
    sizes = np.diff(pieces.indptr)
    keep = np.minimum(keep, sizes).astype(np.int32)
    position = np.arange(pieces.nnz, dtype=np.int32) - np.repeat(pieces.indptr[:-1], sizes)
    columns = pieces.indices[position < np.repeat(keep, sizes)]
    starts = np.concatenate([[0], np.cumsum(keep)])
    return sparse.csr_array((np.ones(columns.size, np.int32), columns, starts), pieces.shape)


def _merged(labels: Ints, pieces: sparse.csr_array, *, left: Ints, right: Ints, similarity: float) -> Ints:
    """The labels after every pair (left, right) that is similar enough was put into one group."""
    sizes = np.diff(pieces.indptr)
    cost = np.cumsum(sizes[left] + sizes[right])
    bounds = np.flatnonzero(np.diff(cost // PIECES_AT_ONCE)) + 1
    for some_left, some_right in zip(np.split(left, bounds), np.split(right, bounds), strict=True):
        apart = labels[some_left] != labels[some_right]
        a, b = some_left[apart], some_right[apart]
        shared = pieces[a].multiply(pieces[b]).sum(axis=1)
        close = shared >= similarity * (sizes[a] + sizes[b] - shared) - 1e-9
        if close.any():
            edges = (np.ones(int(close.sum())), (labels[a[close]], labels[b[close]]))
            _, merged = connected_components(
                sparse.coo_array(edges, (labels.size, labels.size)), directed=False
            )
            labels = merged[labels].astype(np.int64)
    return labels


def _joined(first: Ints, second: Ints) -> Ints:
    """Group numbers where rows that share a number in either partition are together."""
    nodes = int(first.max()) + int(second.max()) + 2
    edges = (np.ones(first.size), (first, second + int(first.max()) + 1))
    _, labels = connected_components(sparse.coo_array(edges, (nodes, nodes)), directed=False)
    groups: Ints = labels[first].astype(np.int64)
    return groups


def _codes(values: Iterable[Hashable]) -> Ints:
    """Numbers from 0 on, in the order in which the values first occur."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])
