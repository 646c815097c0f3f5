"""What to search next."""

from __future__ import annotations

import pandas as pd

from sweep.analysis.axes import Axis, axes_of, shown, title
from sweep.search.ranges import broken_claim
from sweep.search.space import Space
from sweep.types import Recipe

# Within this share of an axis from its end, the best value may well lie beyond.
EDGE = 0.03
# A parameter that explains less, whatever the draw, does not care where it stands.
MATTERS = 0.05
# Fewer choices have nothing but ends.
FEWEST = 3


def edges(best: Recipe, space: Space, importances: pd.DataFrame) -> str | None:
    """A sentence naming the parameters that matter and whose best value lies at an end of what was searched.

    Matters: a total share of a twentieth or more in 95% of the draws. Choices without order have no
    ends; an end beyond which no value is allowed is none. None where all lie inside.
    """
    low = importances.set_index("parameter")["total_low"]
    active = space.encode(best)
    found = []
    for axis in axes_of(space):
        if axis.name not in active or not low.get(axis.name, 0.0) >= MATTERS or not _has_ends(axis):
            continue
        value = getattr(best, axis.name)
        (place,) = axis.encode([value])
        beyond, end = (_below(axis), "lower") if place < 0.5 else (_above(axis), "upper")
        if EDGE <= place <= 1 - EDGE or broken_claim(axis.name, beyond):
            continue
        found.append((f"{title(axis.name)} {shown(value)} ({end})", f"space.{axis.name}"))
    if not found:
        return None
    values, keys = (", ".join(parts) for parts in zip(*found, strict=True))
    return f"The best lies at an end of what was searched: {values}. Widen {keys} and search again."


def _has_ends(axis: Axis) -> bool:
    return axis.scale != "categorical" and (not axis.discrete or len(axis.choices) >= FEWEST)


def _below(axis: Axis) -> float:
    """A value a little beyond the lower end."""
    if axis.discrete:
        return float(axis.choices[0] - 1)
    return axis.low / 2 if axis.scale == "log" else axis.low - EDGE * (axis.high - axis.low)


def _above(axis: Axis) -> float:
    if axis.discrete:
        return float(axis.choices[-1] + 1)
    return axis.high * 2 if axis.scale == "log" else axis.high + EDGE * (axis.high - axis.low)
