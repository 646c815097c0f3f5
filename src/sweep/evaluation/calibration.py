"""What a score says about the chance that a reply resolves its ticket, learnt from people's labels."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from sweep.data.example import Example
from sweep.errors import DataError
from sweep.evaluation.scorers import Scorer

# With fewer, a probability is off by more than amounts of money bear.
FEWEST_LABELS = 100
_FLOOR_ROWS = 100
_ANSWERS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Label(NamedTuple):
    """What a person said of a reply. score: of the proxy."""

    score: float
    resolved: bool


@dataclass(frozen=True)
class Learnt:
    """The probability by a logistic curve over the score."""

    slope: float
    intercept: float

    calibrated: ClassVar[bool] = True

    def __call__(self, score: float) -> float:
        return 0.5 * (1 + math.tanh((self.slope * score + self.intercept) / 2))


@dataclass(frozen=True)
class Raw:
    """The score itself, from 0 at `floor`, which any answer has, to 1: an order, not a probability."""

    floor: float

    calibrated: ClassVar[bool] = False

    def __call__(self, score: float) -> float:
        return max(0.0, (score - self.floor) / (1 - self.floor)) if self.floor < 1 else score


def calibrate(labels: Sequence[Label], scorer: Scorer, examples: Sequence[Example]) -> Learnt | Raw:
    """The curve that the labels draw; with fewer than 100 of them the raw score.

    examples: whose reference answers, each scored as a reply to another row, give the raw score's floor.
    Raises DataError where all labels say the same.
    """
    if len(labels) < FEWEST_LABELS:
        return Raw(_floor(scorer, examples))
    from sklearn.linear_model import LogisticRegression

    resolved = np.array([label.resolved for label in labels])
    if resolved.all() or not resolved.any():
        raise DataError(
            f"objective.labels: all {len(labels)} rows say resolved={bool(resolved[0])}; there must be both. "
            "Label replies that failed and replies that did well."
        )
    # Nearly without shrinkage, which would only flatten the curve; none at all has no end where scores part
    # the labels cleanly.
    fitted = LogisticRegression(C=1e3).fit(np.array([[label.score] for label in labels]), resolved)
    return Learnt(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def read_labels(path: Path, scorer: Scorer, examples: Mapping[str, Example]) -> list[Label]:
    """The labels of a .csv or .jsonl file with `score` and `resolved`, or `row`, `reply` and `resolved`.

    examples: by id, for replies that are yet to be scored. Raises DataError that names the file and line.
    """
    return [
        _label(cells, scorer, examples, f"objective.labels={path}, line {line}")
        for line, cells in _rows(path)
    ]


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file)
                yield from ((reader.line_num, cells) for cells in reader)
                return
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, _object(text, f"objective.labels={path}, line {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"objective.labels={path}: can't be read: {error}; must be a .csv or .jsonl file in UTF-8. "
            "Correct the path, or set objective.labels=null."
        ) from error


def _object(text: str, place: str) -> Mapping[str, object]:
    try:
        cells = json.loads(text)
    except ValueError as error:
        raise DataError(f"{place}: is not JSON ({error}); must be one object. Mend or delete it.") from error
    if not isinstance(cells, dict):
        raise DataError(f"{place}: is {text.strip()[:60]}; must be one object. Mend or delete it.")
    return cells


def _label(cells: Mapping[str, object], scorer: Scorer, examples: Mapping[str, Example], place: str) -> Label:
    resolved = _ANSWERS.get(str(cells.get("resolved")).strip().lower())
    if resolved is None:
        raise DataError(
            f"{place}: `resolved` is {cells.get('resolved')!r}; must be true or false, yes or no, 1 or 0. "
            "Mend it."
        )
    if cells.get("score") not in (None, ""):
        score = _number(cells["score"])
        wanted = "`score` must be a number from 0 to 1"
    else:
        example, reply = examples.get(str(cells.get("row"))), cells.get("reply")
        given = None if example is None or not isinstance(reply, str) else scorer(example, reply)
        score = math.nan if given is None else float(given)
        wanted = "there must be a `score`, or the id of a `row` of the data and the `reply` to it"
    if not 0 <= score <= 1:
        raise DataError(f"{place}: is {dict(cells)!r:.100}; {wanted}. Mend or delete it.")
    return Label(score, resolved)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _floor(scorer: Scorer, examples: Sequence[Example]) -> float:
    """The mean score of answers to other rows; 0 with a single row. Source: the score of a random answer."""
    rows = examples[:_FLOOR_ROWS]
    if len(rows) < 2:
        return 0.0
    others = [*rows[1:], rows[0]]
    given = (scorer(row, other.response) for row, other in zip(rows, others, strict=True))
    return float(np.mean([value for value in given if value is not None] or [0.0]))
