"""Figures of the analysis tables. Nothing is computed here; every number drawn stands in its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.axes import Axis, shown, title
from sweep.reporting.style import BLUE, INK, ORANGE, RED, decades, dress

# Stops crowd at the low end: a pair of 5% must differ from none beside a main effect of 70%.
SHARES = [
    [0.0, "#F4F7FB"],
    [0.03, "#E3EEF8"],
    [0.1, "#BBD6EB"],
    [0.3, "#6BAED6"],
    [0.6, "#2171B5"],
    [1.0, "#08306B"],
]
RIDGE = {"linear": "lines", "log": "lines", "ordered": "lines+markers", "categorical": "markers"}


def importance_figure(importances: pd.DataFrame) -> go.Figure:
    """Bars of main and total shares with their 90% intervals, the most important parameter on top."""
    figure = go.Figure()
    for column, low, high, label, colour in (
        ("main", "low", "high", "on its own", BLUE),
        ("total", "total_low", "total_high", "with its interactions", ORANGE),
    ):
        figure.add_bar(
            orientation="h",
            name=label,
            x=importances[column],
            y=importances["parameter"].map(title),
            marker_color=colour,
            error_x={
                "type": "data",
                "symmetric": False,
                "array": importances[high] - importances[column],
                "arrayminus": importances[column] - importances[low],
                "color": INK,
                "thickness": 1.3,
                "width": 4,
            },
            hovertemplate="%{y} " + label + ": %{x:.1%}<extra></extra>",
        )
    dress(figure, "What the loss depends on", height=170 + 62 * max(len(importances), 1))
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08)
    figure.update_xaxes(
        title_text="share of the variance, bars: median, whiskers: 90%", tickformat=".0%", rangemode="tozero"
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def interaction_figure(interactions: pd.DataFrame, importances: pd.DataFrame) -> go.Figure:
    """Matrix of pair shares with their 90% intervals; main shares on the diagonal."""
    names = list(importances["parameter"])
    place = {name: i for i, name in enumerate(names)}
    shares = np.full((len(names), len(names)), np.nan)
    titles = [title(name) for name in names]
    notes = []
    for row in importances.to_dict("records"):
        at = place[row["parameter"]]
        shares[at, at] = row["main"]
        notes.append(_note(titles[at], titles[at], row["main"], row["low"], row["high"]))
    for row in interactions.to_dict("records"):
        left, below = sorted((place[row["first"]], place[row["second"]]))
        shares[below, left] = row["share"]
        notes.append(_note(titles[left], titles[below], row["share"], row["low"], row["high"]))
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=titles,
            y=titles,
            colorscale=SHARES,
            zmin=0.0,
            zmax=1.0,
            xgap=3,
            ygap=3,
            hoverongaps=False,
            hovertemplate="%{y} and %{x}: %{z:.1%}<extra></extra>",
            showscale=False,
        )
    )
    side = 84 * max(len(names), 2)
    dress(figure, "How the parameters act on each other", height=side + 150, top=56)
    figure.update_layout(width=max(860, side * 1.25 + 160), annotations=notes)
    figure.update_xaxes(
        showgrid=False,
        tickangle=-30,
        title_text="diagonal: on its own; below: what a pair adds; small: 90%",
    )
    figure.update_yaxes(showgrid=False, autorange="reversed")
    return figure


def surface_figure(
    surface: pd.DataFrame, first: Axis, second: Axis, *, trials: pd.DataFrame | None = None
) -> go.Figure:
    """Contours of the loss over two parameters, the best `second` for each `first`, and the trials."""
    x, y = _places(first, first.values), _places(second, second.values)
    loss = surface["loss"].to_numpy().reshape(len(x), len(y)).T
    ridge = surface["best"].to_numpy().reshape(len(x), len(y))[:, 0]
    drawn = {
        "z": loss,
        "x": x,
        "y": y,
        "colorscale": "Viridis",
        "reversescale": True,
        "colorbar": {
            "title": {"text": "nats per token", "font": {"size": 14}},
            "tickformat": ".3~f",
            "thickness": 14,
            "outlinewidth": 0,
        },
        "hovertemplate": f"{first.title} %{{x}}<br>{second.title} %{{y}}<br>loss %{{z:.3f}}<extra></extra>",
    }
    # Between two categories there is nothing to interpolate.
    unordered = "categorical" in (first.scale, second.scale)
    line = {"width": 0.6, "color": "rgba(255,255,255,0.55)"}
    figure = go.Figure(
        go.Heatmap(**drawn, xgap=2) if unordered else go.Contour(**drawn, ncontours=16, line=line)
    )
    if trials is not None:
        _add_trials(figure, trials, first, second)
    figure.add_scatter(
        x=x,
        y=_places(second, list(ridge)),
        mode=RIDGE[first.scale],
        name=f"best {second.title}",
        cliponaxis=False,
        line={"color": RED, "width": 4},
        marker={"size": 11, "color": RED, "line": {"color": "white", "width": 1.5}},
    )
    dress(figure, f"Loss over {first.title} and {second.title}", height=560)
    figure.update_xaxes(**_scale(first))
    figure.update_yaxes(**_scale(second))
    return figure


def _add_trials(figure: go.Figure, trials: pd.DataFrame, first: Axis, second: Axis) -> None:
    last = trials.sort_values("examples_seen").drop_duplicates("trial", keep="last")
    diverged = last["state"] == "diverged"
    for rows, label, symbol in ((last[~diverged], "trial", "circle"), (last[diverged], "diverged", "x")):
        if rows.empty:
            continue
        figure.add_scatter(
            x=_places(first, rows[first.name].tolist()),
            y=_places(second, rows[second.name].tolist()),
            mode="markers",
            cliponaxis=False,
            name=label,
            marker={
                "symbol": symbol,
                "size": 11 if symbol == "x" else 8,
                "color": INK if symbol == "x" else "rgba(255,255,255,0.9)",
                "line": {"color": "white" if symbol == "x" else INK, "width": 1},
            },
            text=[
                f"trial {number}" + ("" if np.isnan(loss) else f": {loss:.3f}")
                for number, loss in zip(rows["trial"], rows["loss"], strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )


def _places(axis: Axis, values: Sequence[Any]) -> list[float]:
    """Where values stand on a figure's axis: their own place, or the choice's number."""
    if axis.discrete:
        return [float(place) for place in axis.encode(values) * (len(axis.choices) - 1)]
    return [float(value) for value in values]


def _scale(axis: Axis) -> dict[str, Any]:
    if axis.discrete:
        count = len(axis.choices)
        labels = [shown(choice) for choice in axis.choices]
        return {"title_text": axis.title, "tickvals": list(range(count)), "ticktext": labels}
    if axis.scale == "log":
        ends = [float(np.log10(axis.low)), float(np.log10(axis.high))]
        return {"title_text": axis.title, "type": "log", "range": ends, **decades(axis.low, axis.high)}
    return {"title_text": axis.title, "range": [axis.low, axis.high]}


def _note(x: str, y: str, share: float, low: float, high: float) -> dict[str, Any]:
    text = f"<b>{share:.0%}</b><br><span style='font-size:12px'>{low:.0%} to {high:.0%}</span>"
    return {"x": x, "y": y, "text": text, "showarrow": False, "font_color": "white" if share > 0.35 else INK}
