"""Losses from rung to rung, against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweep.evaluation.course import CHANGE, CHANGE_ERROR, best_rung, changed, rose_twice
from sweep.types import Report, RowLoss


def rungs(*steps: tuple[float, float]) -> list[Report]:
    """Rungs 1, 2, ... of which each but the first changed by so much, with that error."""
    metrics = [{}, *({CHANGE: change, CHANGE_ERROR: error} for change, error in steps)]
    return [
        Report(job="", trial="", attempt=0, examples_seen=k + 1, state="reached", metrics=of_rung)
        for k, of_rung in enumerate(metrics)
    ]


def test_a_change_is_that_of_the_rows_that_both_rungs_have():
    rng = np.random.default_rng(0)
    before, step = rng.uniform(5, 9, size=30), rng.normal(0.4, 1.0, size=30)
    rows = [RowLoss(str(k), nats, 4) for k, nats in enumerate(before + step)]
    others = [RowLoss(f"other {k}", 900.0, 4) for k in range(10)]
    found = changed([*rows, *others], before.tolist())
    assert found[CHANGE] == pytest.approx(step.mean() / 4)
    assert found[CHANGE_ERROR] == pytest.approx(step.std(ddof=1) / math.sqrt(30) / 4)


def test_long_rows_count_as_much_as_their_tokens():
    rows = [RowLoss("short", 3.0, 1), RowLoss("long", 9.0, 9)]
    assert changed(rows, [1.0, 9.0])[CHANGE] == pytest.approx(12 / 10 - 10 / 10)


@pytest.mark.parametrize(
    ("rows", "before"),
    [
        ([], []),
        ([RowLoss("a", 1.0, 4)], [2.0]),
        ([RowLoss("a", 1.0, 4)] * 2, []),
        ([RowLoss("a", 0.0, 0), RowLoss("b", 0.0, 0), RowLoss("c", 1.0, 4)], [0.0, 0.0]),
    ],
)
def test_nothing_is_told_of_rows_that_tell_nothing(rows, before):
    assert changed(rows, before) == {}


@pytest.mark.parametrize(
    ("steps", "twice", "best"),
    [
        ([], False, 1),
        ([(-0.5, 0.1)], False, 2),
        ([(0.5, 0.1)], False, 1),
        ([(0.5, 0.6)], False, 2),
        ([(0.5, 0.1), (0.5, 0.1)], True, 1),
        ([(0.5, 0.1), (0.5, 0.6)], False, 1),
        ([(0.5, 0.1), (-0.4, 0.1)], False, 3),
        ([(-0.5, 0.1), (0.5, 0.1)], False, 2),
        ([(-0.5, 0.1), (0.5, 0.1), (0.1, 0.01)], True, 2),
        # Each rise within its noise, both together beyond it.
        ([(0.09, 0.1), (0.09, 0.1)], False, 2),
        ([(0.09, 0.1), (0.04, 0.1)], False, 3),
        # Not known: never worse.
        ([(0.5, math.inf), (0.5, 0.1)], False, 2),
    ],
)
def test_rises_and_the_best_rung(steps, twice, best):
    assert rose_twice(rungs(*steps)) == twice
    assert best_rung(rungs(*steps)).examples_seen == best


def test_rungs_without_rows_are_taken_as_they_come():
    plain = [
        Report(job="", trial="", attempt=0, examples_seen=k, state="reached", validation_loss=float(k))
        for k in (1, 2, 3)
    ]
    assert not rose_twice(plain)
    assert best_rung(plain).examples_seen == 3
