"""What each way to answer is worth: a figure of the ways table."""

from __future__ import annotations

import math
from html import escape

import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.axes import sentence
from sweep.evaluation.goal import Goal
from sweep.reporting.style import BLUE, INK, RED, dress

PALE_BLUE = "#9CC5E0"
# By split: how its bars are called and coloured.
SPLITS = {
    "confirm": ("confirm rows, which chose the winner", PALE_BLUE),
    "test": ("test rows, opened once", BLUE),
}


def ways_figure(ways: pd.DataFrame, goal: Goal) -> go.Figure:
    """Bars of the values with their 95% intervals, best way on top; a line where a model is worth having."""
    figure = go.Figure()
    names = list(dict.fromkeys(ways["way"]))
    kinds = dict(zip(ways["way"], ways["kind"], strict=True))
    for split, (label, colour) in SPLITS.items():
        rows = ways[ways["split"] == split]
        if rows.empty:
            continue
        figure.add_bar(
            orientation="h",
            name=label,
            x=rows["value"],
            y=[_label(way, kinds[way]) for way in rows["way"]],
            marker_color=colour,
            error_x={
                "type": "data",
                "symmetric": False,
                "array": _finite(rows["high"] - rows["value"]),
                "arrayminus": _finite(rows["value"] - rows["low"]),
                "color": INK,
                "thickness": 1.3,
                "width": 4,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    dress(figure, escape(sentence(goal.objective)), height=190 + 46 * max(len(names), 1))
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08)
    figure.update_xaxes(title_text=escape(goal.unit))
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        categoryorder="array",
        categoryarray=[_label(way, kinds[way]) for way in names],
    )
    if goal.least is not None:
        figure.add_vline(x=goal.least, line={"color": RED, "width": 2, "dash": "6px,4px"})
        # An empty trace, since lines have no place in the legend.
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="lines",
            name=f"worth having from {goal.least:g}",
            line={"color": RED, "width": 2, "dash": "6px,4px"},
        )
    return figure


def _label(way: str, kind: str) -> str:
    text = escape(way)
    return f"<b>{text}</b>" if kind == "winner" else text


def _finite(widths: pd.Series[float]) -> list[float]:
    """Whiskers of no length where the interval has no end."""
    return [width if math.isfinite(width) else 0.0 for width in widths]
