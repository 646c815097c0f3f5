"""What to search next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sweep.analysis.axes import Axis, shown, title
from sweep.types import Recipe

# Within this share of an axis from its end, the best value may well lie beyond.
EDGE = 0.03
# A parameter that explains less does not care where it stands.
MATTERS = 0.1


def edges(best: Recipe, axes: Sequence[Axis], importances: pd.DataFrame) -> str | None:
    """A sentence naming the parameters that matter and whose best value lies at an end of what was searched.

    Matters: a total share of a tenth or more. Choices without order have no ends. None where all
    lie inside.
    """
    total = importances.set_index("parameter")["total"]
    found = []
    for axis in axes:
        if axis.scale == "categorical" or not total.get(axis.name, 0.0) >= MATTERS:
            continue
        value = getattr(best, axis.name)
        (place,) = axis.encode([value])
        if end := "lower" if place < EDGE else "upper" if place > 1 - EDGE else None:
            found.append((f"{title(axis.name)} {shown(value)} ({end})", f"space.{axis.name}"))
    if not found:
        return None
    values, keys = (", ".join(parts) for parts in zip(*found, strict=True))
    return f"The best lies at an end of what was searched: {values}. Widen {keys} and search again."
