"""An objective on the parts of the traffic: a mean over all hides who is served worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sweep.evaluation.objective import Objective
from sweep.evaluation.outcomes import Outcome
from sweep.types import Score

# With fewer, a share moves by five points with one row.
FEWEST_ROWS = 20


class Slice(NamedTuple):
    """The score of the rows that have `value` in `column`."""

    column: str
    value: str
    score: Score


def by_slice(
    outcomes: Sequence[Outcome],
    objective: Objective[Outcome],
    *,
    trained: bool = True,
    least: int = FEWEST_ROWS,
) -> tuple[Slice, ...]:
    """A score for each value of each slice column with at least so many rows, by column and value."""
    pairs = sorted({pair for outcome in outcomes for pair in outcome.slices.items()})
    parts = {
        (column, value): [outcome for outcome in outcomes if outcome.slices.get(column) == value]
        for column, value in pairs
    }
    return tuple(
        Slice(*pair, objective.score(rows, trained=trained))
        for pair, rows in parts.items()
        if len(rows) >= least
    )
