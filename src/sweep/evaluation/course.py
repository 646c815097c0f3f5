"""How a trial's validation loss goes from rung to rung, and after which rung its state is best.

Lower rungs are scored on the first of the rows only, so a rung is compared with the one before on the rows
that both have. Changes add up from rung to rung, and so do their variances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweep.evaluation.compare import loss_score, paired_error
from sweep.evaluation.guards import rising
from sweep.types import Report, RowLoss

CHANGE = "validation_loss_change"
CHANGE_ERROR = "validation_loss_change_error"


def changed(rows: Sequence[RowLoss], before: Sequence[float]) -> dict[str, float]:
    """By how much the loss changed since the rung before, and the standard error of that, as metrics.

    before: nats of the first of these rows, as they were there. Nothing where fewer than two rows or none
    with a token are common.
    """
    now = rows[: len(before)]
    if len(now) < 2 or not any(row.tokens for row in now):
        return {}
    then = [row._replace(nats=nats) for row, nats in zip(now, before, strict=False)]
    change = loss_score(now).value - loss_score(then).value
    return {CHANGE: change, CHANGE_ERROR: paired_error(now, then)}


def rose_twice(rungs: Sequence[Report]) -> bool:
    """Whether the loss rose at the last two of a trial's rungs, oldest first, beyond their noise."""
    losses, errors = _course(rungs)
    return rising(losses, noise=errors)


def best_rung(rungs: Sequence[Report]) -> Report:
    """The latest of a trial's rungs, oldest first, that is worse than none before it beyond noise."""
    losses, errors = _course(rungs)
    for last in reversed(range(len(rungs))):
        if all(losses[last] - losses[k] <= math.hypot(*errors[k:last]) for k in range(last)):
            break
    return rungs[last]


def _course(rungs: Sequence[Report]) -> tuple[list[float], list[float]]:
    """Losses as they differ from the first rung's, and each step's error, infinite where it is not known."""
    losses = [0.0]
    for report in rungs[1:]:
        losses.append(losses[-1] + report.metrics.get(CHANGE, 0.0))
    return losses, [report.metrics.get(CHANGE_ERROR, math.inf) for report in rungs[1:]]
