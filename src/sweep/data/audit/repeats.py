"""Rows that repeat one another, within a split and across."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from sweep.data.audit.finding import Finding, Row, answers_of, judge, prompts_of, shortened
from sweep.data.example import Example
from sweep.data.split import normalised
from sweep.types import Limit, Split

SIMILARITY = 0.8
PIECE = 5
# Pairs are proposed well below the similarity that counts, so that hardly one is missed, then compared.
_PROPOSED = 0.6
_BANDS = 12
_BAND = 5

Ints = npt.NDArray[np.int64]
Sketches = npt.NDArray[np.uint32]


def enough_rows(examples: Sequence[Example], limit: Limit) -> Finding:
    """How many rows differ in prompt or answer."""
    distinct = len({_content(example) for example in examples})
    return judge(
        "rows",
        distinct,
        limit,
        worse="below",
        unit="number",
        message=f"{distinct:,} different rows",
        mend="Collect more conversations: below some two thousand, what is found hangs on single rows.",
    )


def exact_repeats(examples: Sequence[Example], limit: Limit) -> Finding:
    """The share of rows that an earlier row says word for word."""
    again = _repeated([_content(example) for example in examples])
    share = len(again) / len(examples)
    return judge(
        "exact_duplicates",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the rows are there already",
        mend="Delete the repeats: they count several times in training and flatter every score.",
        rows=prompts_of(examples[row] for row in again),
    )


def near_repeats(examples: Sequence[Example], groups: Ints, limit: Limit) -> Finding:
    """The share of rows that an earlier row says in nearly the same words. groups: `look_alikes`."""
    again = _repeated(groups.tolist())
    share = len(again) / len(examples)
    return judge(
        "near_duplicates",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the rows are nearly like an earlier one",
        mend="Keep one row of each group, or write what sets them apart: new wordings, other cases.",
        rows=prompts_of(examples[row] for row in again),
    )


def leaks(examples: Sequence[Example], splits: Mapping[str, Split], groups: Ints, limit: Limit) -> Finding:
    """The share of evaluation rows with a look-alike in the train split. splits: by row id."""
    training = {
        group for group, row in zip(groups.tolist(), examples, strict=True) if splits[row.id] == "train"
    }
    held_out = [
        (group, row)
        for group, row in zip(groups.tolist(), examples, strict=True)
        if splits[row.id] != "train"
    ]
    leaked = [row for group, row in held_out if group in training]
    share = len(leaked) / max(1, len(held_out))
    return judge(
        "leaks",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the held-out rows have a look-alike in the train split",
        mend="Keep one row of each group of look-alikes: where too many share an answer they can't all be in "
        "one split, and held-out losses flatter a model that learns by heart.",
        rows=prompts_of(leaked),
    )


def conflicts(examples: Sequence[Example], limit: Limit) -> Finding:
    """The share of rows whose prompt, word for word, is answered to another effect elsewhere.

    That is: another intent, other required phrases, or, where rows have none, other numbers in the
    answer. Other words alone are no conflict.
    """
    effects: dict[str, set[Hashable]] = defaultdict(set)
    for example in examples:
        effects[_question(example)].add(_effect(example))
    torn = [example for example in examples if len(effects[_question(example)]) > 1]
    share = len(torn) / len(examples)
    return judge(
        "conflicting_answers",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the rows ask what is answered to another effect elsewhere",
        mend="Decide on one answer, or add to the prompt what tells the cases apart.",
        rows=[
            Row(example.id, f"{shortened(example.prompt)} -> {shortened(example.response)}")
            for example in sorted(torn, key=lambda example: (_question(example), example.id))
        ],
    )


def distinct_answers(examples: Sequence[Example], limit: Limit) -> Finding:
    """Different answers for each row."""
    counts = Counter(normalised(example.response) for example in examples)
    share = len(counts) / len(examples)
    commonest = {answer for answer, _ in counts.most_common(3)}
    shown = {normalised(example.response): example for example in reversed(examples)}
    return judge(
        "distinct_answers",
        share,
        limit,
        worse="below",
        message=f"{len(counts):,} different answers to {len(examples):,} rows",
        mend="Take answers that people gave to single customers in place of one text for each subject: a "
        "model recites these few and scores well on whatever repeats them.",
        rows=answers_of(shown[answer] for answer in commonest),
    )


def look_alikes(examples: Sequence[Example]) -> Ints:
    """A group number per row: chains of rows whose sets of five-character pieces overlap by 0.8 or more.

    Pairs are proposed by MinHash, of which a few are missed, and compared exactly, unless they are together
    already. Source: Broder 1997, doi:10.1109/SEQUEN.1997.666900.
    """
    texts = [normalised(f"{example.prompt}\n{example.response}") for example in examples]
    distinct = list(dict.fromkeys(texts))
    groups = _Groups(len(distinct))
    for row, others in _proposed(np.stack([_sketch(text) for text in distinct])):
        pieces = _pieces(distinct[row])
        for other in others.tolist():
            apart = groups.of(row) != groups.of(other)
            if apart and _overlap(pieces, _pieces(distinct[other])) >= SIMILARITY:
                groups.join(row, other)
    numbers = {text: groups.of(row) for row, text in enumerate(distinct)}
    return np.array([numbers[text] for text in texts], dtype=np.int64)


class _Groups:
    """Rows joined pair by pair; a group is known by its first row."""

    def __init__(self, rows: int) -> None:
        self._before = list(range(rows))

    def of(self, row: int) -> int:
        while self._before[row] != row:
            row = self._before[row] = self._before[self._before[row]]
        return row

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.of(one), self.of(other)))
        self._before[second] = first


def _sketch(text: str) -> Sketches:
    sketch = MinHash(num_perm=_BANDS * _BAND, seed=1)
    sketch.update_batch([piece.encode() for piece in sorted(_pieces(text))])
    found: Sketches = sketch.hashvalues.astype(np.uint32)
    return found


def _proposed(sketches: Sketches) -> Iterator[tuple[int, Ints]]:
    """Each row with the earlier ones that agree with it in a whole band and in enough of the whole sketch.

    Rows that agree in a band lie in a run, in their order.
    """
    runs = []
    for band in np.split(sketches, _BANDS, axis=1):
        _, run, sizes = np.unique(band, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(run, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        runs.append((order, (np.cumsum(sizes) - sizes)[run], place))
    for row, sketch in enumerate(sketches):
        earlier = np.unique(np.concatenate([order[begin[row] : place[row]] for order, begin, place in runs]))
        if earlier.size:
            # Before texts are compared: rows from one template often agree in a band, seldom in the whole.
            yield row, earlier[(sketches[earlier] == sketch).mean(axis=1) >= _PROPOSED]


def _pieces(text: str) -> frozenset[str]:
    return frozenset(text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1)))


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def _content(example: Example) -> tuple[str, str]:
    return " ".join(example.prompt.split()), " ".join(example.response.split())


def _repeated(keys: Sequence[object]) -> list[int]:
    """The rows whose key an earlier row has."""
    seen: set[object] = set()
    again = []
    for row, key in enumerate(keys):
        if key in seen:
            again.append(row)
        seen.add(key)
    return again


def _question(example: Example) -> str:
    return " ".join(example.prompt.lower().split())


def _effect(example: Example) -> Hashable:
    told = frozenset(example.required) or frozenset(re.findall(r"\d+(?:[.,]\d+)*", example.response))
    return example.intent, told
