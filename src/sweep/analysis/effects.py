"""How the searched parameters act, in all: tables and sentences from one surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sweep.analysis.advice import edges
from sweep.analysis.axes import Axis, axes_of, title
from sweep.analysis.importance import importances
from sweep.analysis.interactions import describe, interactions, surface
from sweep.analysis.surrogate import fit, trials_table
from sweep.search.space import Space
from sweep.types import Standing, winner_of

PAIRS_DRAWN = 3


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The loss over a pair of parameters: see `interactions.surface`. reading: how they act on each other."""

    first: Axis
    second: Axis
    loss: pd.DataFrame
    reading: str


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What the trials tell about the parameters.

    trials: `trials_table`. axes: of the whole space. importances, interactions: empty where nothing
    can be said. surfaces: of the strongest pairs, strongest first. r_squared: of the surrogate on
    trials left out, None without one. advice: what to search next, if so.
    """

    trials: pd.DataFrame
    axes: tuple[Axis, ...]
    importances: pd.DataFrame
    interactions: pd.DataFrame
    surfaces: tuple[Surface, ...]
    r_squared: float | None
    advice: str | None

    @property
    def readings(self) -> tuple[str, ...]:
        """Sentences: the parameter that matters most, the strongest pair, what to search next."""
        if self.r_squared is None:
            return ("Too few trials with different losses to tell how the parameters act.",)
        pair = [self.surfaces[0].reading] if self.surfaces else []
        advice = [self.advice] if self.advice else []
        return (_leading(self.importances), *pair, *advice)


def effects_of(standings: Sequence[Standing], space: Space, *, seed: int) -> Effects:
    """The effects in these trials. Same trials and seed, same effects."""
    axes = axes_of(space)
    table = trials_table(standings, [axis.name for axis in axes])
    surrogate = fit(table, axes, seed=seed)
    pairs = interactions(table, axes, seed=seed, surrogate=surrogate)
    surfaces = (
        []
        if surrogate is None
        else [
            Surface(
                first=surrogate.axis(first),
                second=surrogate.axis(second),
                loss=surface(surrogate, first, second),
                reading=describe(surrogate, first, second),
            )
            for first, second in pairs[["first", "second"]].head(PAIRS_DRAWN).itertuples(index=False)
        ]
    )
    shares = importances(table, axes, seed=seed, surrogate=surrogate)
    best = winner_of(standings)
    return Effects(
        trials=table,
        axes=axes,
        importances=shares,
        interactions=pairs,
        surfaces=tuple(surfaces),
        r_squared=None if surrogate is None else surrogate.r_squared,
        advice=edges(best.trial.recipe, axes, shares) if best else None,
    )


def _leading(importances: pd.DataFrame) -> str:
    """Which parameter matters most, where its interval lies above the others' medians."""
    rivals = importances[importances["total"] > importances["total_low"].iloc[0]]
    names = [title(name) for name in rivals["parameter"]]
    shares = [
        f"{total:.0%} ({low:.0%} to {high:.0%})"
        for total, low, high in zip(rivals["total"], rivals["total_low"], rivals["total_high"], strict=True)
    ]
    if len(rivals) == 1:
        name = f"{names[0][0].upper()}{names[0][1:]}"
        return f"{name} matters most: {shares[0]} of the loss's variance, with its interactions."
    told = ", ".join(f"{name} {share}" for name, share in list(zip(names, shares, strict=True))[:3])
    return f"It is not certain which parameter matters most; of the variance, with interactions: {told}."
