"""Numbers about a trial beside its loss, for those who look at more than the mean.

Each class is one file of `conf/metric/`; its keys are the fields. No search follows them: a trial is judged
by its loss.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from sweep.evaluation.compare import loss_score
from sweep.types import Metric, RowLoss, Score

# What a trial is judged by unless a metric is named.
LOSS = "loss"

_logger = logging.getLogger("sweep.evaluation")


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """e to the nats per token over all rows."""

    def __call__(self, rows: Sequence[RowLoss]) -> float:
        return math.exp(loss_score(rows).value)


@dataclass(frozen=True, kw_only=True)
class HardRows:
    """Nats per token over the `share` of the rows that have most, one at least: what a mean hides."""

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"needs share above 0 and at most 1, got share={self.share}")

    def __call__(self, rows: Sequence[RowLoss]) -> float:
        hardest = sorted((row for row in rows if row.tokens), key=lambda row: -row.nats / row.tokens)
        return loss_score(hardest[: max(1, round(self.share * len(hardest)))]).value


def score(rows: Sequence[RowLoss], metrics: Mapping[str, Metric]) -> Score:
    """`loss_score` with the value of each metric."""
    return replace(loss_score(rows), metrics=measured(rows, metrics))


def measured(rows: Sequence[RowLoss], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The value of each metric on the rows, by name; of no metric without rows.

    A metric that raises, or whose value is no finite number, is left out, with a warning that names
    it, once for all rungs of all trials.
    """
    values = {}
    for name, metric in metrics.items() if rows else ():
        try:
            value = float(metric(rows))
        except Exception as error:  # noqa: BLE001 - anybody's code, and no reason to lose a trained trial
            _warn(name, f"raised {type(error).__name__}")
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            _warn(name, f"gave {value}")
    return values


@cache
def _warn(name: str, what: str) -> None:
    _logger.warning(
        "metric.%s %s, so it is left out wherever it does. It must give a finite number for any rows: mend "
        "its class, or choose others with metric=[...].",
        name,
        what,
        exc_info=sys.exception(),
    )
