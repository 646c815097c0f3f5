"""The loss of a cross-validation, from the reports of its folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from sweep.types import Report

ERROR, ROWS = "validation_loss_error", "validation_rows"


def mean_of_folds(reports: Sequence[Report]) -> Report:
    """The folds' mean, each counting alike whatever its size, at the last one's place; it costs nothing.

    metrics: the means of what all folds have; of the standard error that of the mean, for no row is in two
    folds; of rows the sum.
    """
    metrics = [report.metrics for report in reports]
    common = [name for name in metrics[0] if all(name in found for found in metrics)]
    means = {name: fmean(found[name] for found in metrics) for name in common}
    if ERROR in means:
        means[ERROR] = math.hypot(*(found[ERROR] for found in metrics)) / len(metrics)
    if ROWS in means:
        means[ROWS] = sum(found[ROWS] for found in metrics)
    return replace(
        reports[-1],
        validation_loss=_mean([report.validation_loss for report in reports]),
        bits_per_byte=_mean([report.bits_per_byte for report in reports]),
        metrics=means,
        rows=tuple(row for report in reports for row in report.rows),
        checkpoint=None,
        seconds=0.0,
        tokens=0,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
