"""How parameters act, what trials trade, what was spent, on the sweep's own run: tables, figures, metrics."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.analysis.effects import Effects
from sweep.analysis.front import front_of
from sweep.analysis.trades import aims_of, trades
from sweep.reporting.plots import importance_figure, interaction_figure, surface_figure
from sweep.reporting.trades import trades_figure
from sweep.search.allowance import Bound, Spent
from sweep.tracking.mlflow import Tracker
from sweep.types import Standing


def log_effects(effects: Effects, tracker: Tracker) -> None:
    """Log what can be said; the trials' table in any case."""
    tracker.log_table("trials", effects.trials)
    if effects.r_squared is None:
        return
    tracker.log_table("importances", effects.importances)
    tracker.log_table("interactions", effects.interactions)
    tracker.log_metrics(_metrics(effects, effects.r_squared))
    tracker.log_figure("importances", importance_figure(effects.importances))
    tracker.log_figure("interactions", interaction_figure(effects.interactions, effects.importances))
    for drawn in effects.surfaces:
        figure = surface_figure(drawn.loss, drawn.first, drawn.second, trials=effects.trials)
        tracker.log_figure(f"surface_{drawn.first.name}_{drawn.second.name}", figure)


def log_trades(standings: Sequence[Standing], names: Sequence[str], tracker: Tracker) -> None:
    """Log the front and the knee's values; nothing where the search has one aim."""
    if not (front := front_of(standings)):
        return
    table = trades(standings, names)
    tracker.log_table("trade_offs", table)
    tracker.log_metrics(
        {"front/trials": len(front), **{f"knee/{one.aim}": one.value for one in front[0].aims}}
    )
    tracker.log_figure("trade_offs", trades_figure(table, aims_of(standings)))


def log_spent(bounds: Sequence[Bound], spent: Spent, tracker: Tracker) -> None:
    """Log device hours and, where it is counted, cost; beside them what they may be."""
    used = {bound.key: bound.used(spent) for bound in bounds if bound.key == "cost"}
    tracker.log_metrics(
        {"device_hours": spent.device_hours, **used, **{f"budget/{one.key}": one.most for one in bounds}}
    )


def _metrics(effects: Effects, r_squared: float) -> dict[str, float]:
    importance, pairs = effects.importances, effects.interactions
    mains = {f"importance/{row['parameter']}": row["total"] for row in importance.to_dict("records")}
    shares = {f"interaction/{row['first']}-{row['second']}": row["share"] for row in pairs.to_dict("records")}
    return {**mains, **shares, "analysis/r_squared": r_squared}
