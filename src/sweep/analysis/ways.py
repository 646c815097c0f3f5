"""Every way to answer, trained or not, with what it is worth: a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from scipy.stats import t

from sweep.analysis.axes import title
from sweep.evaluation.compare import CONFIDENCE
from sweep.evaluation.confirmation import Confirmation, Finalist, Simpler
from sweep.evaluation.selection import badness
from sweep.types import Score

COLUMNS = ("way", "kind", "split", "value", "low", "high", "rows")


def ways_of(simpler: Sequence[Simpler], confirmation: Confirmation | None) -> pd.DataFrame:
    """`COLUMNS`: one row per way and split on which it was measured, ways best first by their confirm rows.

    kind: baseline, defaults or winner, which the defaults may be. low, high: see `interval_of`. rows: whose
    mean the value is.
    """
    ways: list[tuple[str, str, Simpler | Finalist]] = [
        (title(one.name), "baseline", one) for one in (confirmation.baselines if confirmation else simpler)
    ]
    if confirmation is not None:
        own = confirmation.winner
        rival = confirmation.defaults
        ways.append((called(own.trial), "winner", own))
        if rival is not None and rival is not own:
            ways.append((called(rival.trial), "defaults", rival))
        better = confirmation.better
        ways.sort(key=lambda way: badness(way[2].confirm.value, better))
    table = [
        _row(name, kind, split, score)
        for name, kind, way in ways
        for split, score in (("confirm", way.confirm), ("test", way.test))
        if score is not None
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))


def called(trial: str) -> str:
    """A trial as people are told of it."""
    return "defaults (trial 0)" if trial == "0" else f"trial {trial}"


def interval_of(score: Score) -> tuple[float, float]:
    """95% interval of a score by Student's t, its rows taken for independent; infinite with a single row.

    It counts neither seeds nor groups of rows, as the interval of a `Difference` does.
    """
    if score.examples < 2:
        return -math.inf, math.inf
    half = float(t.ppf(0.5 + CONFIDENCE / 2, score.examples - 1)) * score.standard_error
    return score.value - half, score.value + half


def _row(name: str, kind: str, split: str, score: Score) -> dict[str, Any]:
    low, high = interval_of(score)
    return {
        "way": name,
        "kind": kind,
        "split": split,
        "value": score.value,
        "low": low,
        "high": high,
        "rows": score.examples,
    }
