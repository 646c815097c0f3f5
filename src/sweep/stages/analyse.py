"""How the searched parameters act, as tables, figures and metrics of the parent run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sweep.analysis.axes import axes_of
from sweep.analysis.importance import importances
from sweep.analysis.interactions import describe, interactions, surface
from sweep.analysis.surrogate import fit, trials_table
from sweep.reporting.plots import importance_figure, interaction_figure, surface_figure
from sweep.search.space import Space
from sweep.tracking.mlflow import Tracker
from sweep.types import Standing


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """importances, interactions: tables, empty where nothing can be said. readings: sentences."""

    importances: pd.DataFrame
    interactions: pd.DataFrame
    readings: tuple[str, ...]


def analyse(standings: Sequence[Standing], space: Space, tracker: Tracker, *, seed: int) -> Analysis:
    """The analysis of all trials, logged on the parent run. Same trials and seed, same analysis."""
    axes = axes_of(space)
    names = [axis.name for axis in axes]
    table = trials_table(standings, names)
    surrogate = fit(table, axes, seed=seed)
    importance = importances(table, axes, seed=seed, surrogate=surrogate)
    pairs = interactions(table, axes, seed=seed, surrogate=surrogate)
    tracker.log_table("trials", table)
    if surrogate is None:
        reading = "Too few trials with different losses to tell how the parameters act."
        return Analysis(importances=importance, interactions=pairs, readings=(reading,))
    strongest = pairs.iloc[0] if len(pairs) else None
    readings = [] if strongest is None else [describe(surrogate, strongest["first"], strongest["second"])]
    tracker.log_table("importances", importance)
    tracker.log_table("interactions", pairs)
    tracker.log_metrics(_metrics(importance, pairs, surrogate.r_squared))
    tracker.log_figure("importances", importance_figure(importance))
    tracker.log_figure("interactions", interaction_figure(pairs, importance))
    if strongest is not None:
        first, second = strongest["first"], strongest["second"]
        drawn = surface(surrogate, first, second)
        figure = surface_figure(drawn, surrogate.axis(first), surrogate.axis(second), trials=table)
        tracker.log_figure(f"surface_{first}_{second}", figure)
    return Analysis(importances=importance, interactions=pairs, readings=tuple(readings))


def _metrics(importance: pd.DataFrame, pairs: pd.DataFrame, r_squared: float) -> dict[str, float]:
    mains = {f"importance/{row['parameter']}": row["total"] for row in importance.to_dict("records")}
    shares = {f"interaction/{row['first']}-{row['second']}": row["share"] for row in pairs.to_dict("records")}
    return {**mains, **shares, "analysis/r_squared": r_squared}
