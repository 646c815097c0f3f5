"""How long a recipe is trained: how far its schedule runs, and where training stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sweep.schema import convert, require
from sweep.types import Recipe


class Length(NamedTuple):
    """Examples that a training's schedule runs to, and after which it stops."""

    horizon: int
    stop: int


def horizon_of(epochs: float, rows: int, *, unit: int) -> int:
    """Examples seen after so many passes over the rows, a multiple of `unit`, at least one."""
    return max(1, round(epochs * rows / unit)) * unit


def length_of(recipe: Recipe, found: Mapping[str, object], *, rows: int) -> Length:
    """Of a training on so many rows: that of the confirmed finalists, on other rows as long a share of it.

    found: the `best` that came with the recipe; where it tells no stop, the schedule ends with the training.
    Raises ConfigError for lengths that can't be.
    """
    horizon, stop, unit = (_examples(found, key) for key in ("horizon", "stop", "unit"))
    # A larger batch than any that was searched, given by hand, sets the unit.
    whole = horizon_of(recipe.epochs, rows, unit=max(unit or 1, recipe.batch_size))
    if horizon is None or stop is None:
        return Length(whole, whole)
    require("best.stop", stop, stop <= horizon, f"at most best.horizon, {horizon}")
    return Length(whole, max(1, round(whole * stop / horizon)))


def _examples(found: Mapping[str, object], key: str) -> int | None:
    given: int | None = convert(int | None, found.get(key), f"best.{key}")
    require(f"best.{key}", given, given is None or given >= 1, "at least 1, or null")
    return given
