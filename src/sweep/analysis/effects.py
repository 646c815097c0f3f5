"""How the searched parameters act, in all: tables and sentences from one surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sweep.analysis.advice import edges
from sweep.analysis.axes import Axis, axes_of, sentence, title
from sweep.analysis.front import winner_of
from sweep.analysis.importance import importances
from sweep.analysis.interactions import AGREEMENT, describe, interactions, surface
from sweep.analysis.surrogate import Surrogate, fit, trials_table
from sweep.search.space import Space
from sweep.types import Standing

PAIRS_DRAWN = 3
_BESIDE = "All this is said of the validation loss, which a search with several aims does not follow."
_UNTOLD = "The trials do not tell how the parameters act: those left out are predicted badly"


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
    trials left out, None without one; trusted: whether that is enough to say anything. advice: what to
    search next, if so. several: the search followed several aims, and not the loss that all this is about.
    """

    trials: pd.DataFrame
    axes: tuple[Axis, ...]
    importances: pd.DataFrame
    interactions: pd.DataFrame
    surfaces: tuple[Surface, ...]
    r_squared: float | None
    trusted: bool
    advice: str | None
    several: bool

    @property
    def readings(self) -> tuple[str, ...]:
        """Sentences: the parameter that matters most, the strongest pair, what to search next."""
        if self.r_squared is None:
            return ("Too few trials with different losses to tell how the parameters act.",)
        if not self.trusted:
            return (f"{_UNTOLD} (R squared {self.r_squared:.2f}): take all shares as guesses.",)
        pair = [self.surfaces[0].reading] if self.surfaces else []
        advice = [self.advice] if self.advice else []
        beside = [_BESIDE] if self.several else []
        return (_leading(self.importances), *pair, *advice, *beside)


def effects_of(standings: Sequence[Standing], space: Space, *, seed: int) -> Effects:
    """The effects in these trials. Same trials and seed, same effects."""
    axes = axes_of(space)
    table = trials_table(standings, space.names)
    surrogate = fit(table, axes, seed=seed)
    pairs = interactions(table, axes, seed=seed, surrogate=surrogate)
    shares = importances(table, axes, seed=seed, surrogate=surrogate)
    trusted = surrogate is not None and surrogate.trusted
    best = winner_of(standings)
    several = any(standing.aims for standing in standings)
    return Effects(
        trials=table,
        axes=axes,
        importances=shares,
        interactions=pairs,
        surfaces=_surfaces(surrogate, pairs) if surrogate else (),
        r_squared=None if surrogate is None else surrogate.r_squared,
        trusted=trusted,
        # Shares are of the loss: they say nothing of where a knee lies.
        advice=edges(best.trial.recipe, space, shares) if best and trusted and not several else None,
        several=several,
    )


def _surfaces(surrogate: Surrogate, pairs: pd.DataFrame) -> tuple[Surface, ...]:
    strongest = pairs[["first", "second"]].head(PAIRS_DRAWN).itertuples(index=False)
    return tuple(
        Surface(
            first=surrogate.axis(first),
            second=surrogate.axis(second),
            loss=surface(surrogate, first, second),
            reading=describe(surrogate, first, second),
        )
        for first, second in strongest
    )


def _leading(importances: pd.DataFrame) -> str:
    """Which parameter matters most, where nine of ten draws agree; else which ones may."""
    names = [title(name) for name in importances["parameter"]]
    if len(names) == 1:
        return f"Only {names[0]} varied, so every difference between trials is its doing, or noise."
    shares = [
        f"{total:.0%} ({low:.0%} to {high:.0%})"
        for total, low, high in importances[["total", "total_low", "total_high"]].itertuples(index=False)
    ]
    first = int(importances["leads"].argmax())
    if importances["leads"].iloc[first] >= AGREEMENT:
        share = f"{shares[first]} of the variance that can be explained, pairs included."
        return f"{sentence(names[first])} matters most: {share}"
    told = [f"{name} {share}" for name, share in zip(names, shares, strict=True)]
    rivals = [text for text, leads in zip(told, importances["leads"], strict=True) if leads >= 1 - AGREEMENT]
    return (
        "It is not certain which parameter matters most. Of the variance that can be explained, pairs "
        f"included: {', '.join(rivals)}."
    )
