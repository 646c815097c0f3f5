"""Metrics as MLflow takes them: finite, and grouped by their step."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from sweep.types import Progress, Standing

# The scheduler sets the rate, so it is finite where losses are not: its points tell which steps are stored.
CURVE_MARK = "learning_rate"
RUNG_MARK = "examples_seen"
# What a trial's run shows in any case, so that no metric of the user's own may be called so.
TAKEN = frozenset(
    {
        "train_loss",
        "gradient_norm",
        CURVE_MARK,
        "validation_loss",
        "validation_loss_error",
        "validation_rows",
        "validation_loss_change",
        "validation_loss_change_error",
        "final_validation_loss",
        "guard/loss_ratio",
        "guard/min_k",
        "guard/verbatim",
        "bits_per_byte",
        "seconds",
        "tokens_per_second",
        "peak_mib",
        "total_tokens",
        "fold",
        RUNG_MARK,
    }
)


class Point(NamedTuple):
    """The finite metrics of one step. nonfinite: how many were left out.

    at_ms: milliseconds since the epoch. MLflow keeps the same value twice if its time differs.
    """

    step: int
    at_ms: int
    values: Mapping[str, float]
    nonfinite: int = 0


def curve_point(event: Progress) -> Point:
    """One optimiser step, stamped with the present."""
    values = {
        "train_loss": event.train_loss,
        "gradient_norm": event.gradient_norm,
        CURVE_MARK: event.learning_rate,
    }
    return _point(values, event.examples_seen, now_ms())


def rung_points(standing: Standing, *, after: int) -> list[Point]:
    """One point per rung beyond `after`, stamped with the report's own time: a replay is the same point.

    A state that was scored again has its point already, and folds' mean is no rung.
    """
    points = []
    tokens, folds = 0, {examples: fold for fold, examples in enumerate(standing.values, start=1)}
    for report in standing.reports:
        tokens += report.tokens
        if report.examples_seen <= after:
            continue
        after = report.examples_seen
        values: dict[str, float | None] = {
            **report.metrics,
            "validation_loss": report.validation_loss,
            "bits_per_byte": report.bits_per_byte,
            "seconds": report.seconds,
            "tokens_per_second": report.tokens / report.seconds if report.seconds else None,
            "peak_mib": report.peak_bytes / 2**20,
            "total_tokens": tokens,
            RUNG_MARK: report.examples_seen,
            "fold": folds.get(report.examples_seen) if standing.folds else None,
        }
        points.append(_point(values, report.examples_seen, report.ended_ms))
    return points


def final_points(standing: Standing) -> list[Point]:
    """Only complete trials have it, so sorting by it compares like with like."""
    if standing.state != "complete" or not standing.reports:
        return []
    last = standing.reports[-1]
    values: dict[str, float | None] = {"final_validation_loss": last.validation_loss}
    if last.examples_seen < standing.reached:
        # Scored again: the rung's own point had no guards.
        values |= {key: value for key, value in last.metrics.items() if key.startswith("guard/")}
    return [_point(values, last.examples_seen, last.ended_ms)]


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """What can be stored, by the key it is stored under: MLflow stores infinity as 1.8e308 and draws it."""
    return {_metric_key(key): float(value) for key, value in values.items() if math.isfinite(value)}


def now_ms() -> int:
    """Milliseconds since the epoch, MLflow's clock."""
    return time.time_ns() // 1_000_000


def _point(values: Mapping[str, float | None], step: int, timestamp_ms: int) -> Point:
    given = {key: float(value) for key, value in values.items() if value is not None}
    shown = finite(given)
    return Point(step, timestamp_ms, shown, len(given) - len(shown))


def _metric_key(key: str) -> str:
    """The key with what MLflow refuses in it replaced by `_` (`@`, `=`, ...), as a path without detours."""
    parts = re.sub(r"[^\w\-. /:]", "_", key, flags=re.ASCII)[:250].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
