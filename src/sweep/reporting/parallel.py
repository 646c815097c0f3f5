"""Which values led where: a figure of the outcomes table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.axes import Axis, shown
from sweep.analysis.outcomes import ceiling_of, losses_of, placed, rungs_of
from sweep.reporting.style import FONT, decades, dress, even, pad_of, without_losses

# By place, best first: one hue that fades into grey.
PLACES = [[0.0, "#08306B"], [0.15, "#2171B5"], [0.4, "#8FBBDB"], [0.7, "#CFCFCF"], [1.0, "#DEDEDE"]]
# Share of an axis between its end and the next tick.
END_GAP = 0.05
# Pixels: for all dimensions of a page 1100 wide, for a letter of their labels.
WIDTH, LETTER = 950, 9
# Dimensions whose labels fit side by side.
UPRIGHT = 9


def parallel_figure(outcomes: pd.DataFrame, axes: Sequence[Axis], *, folds: int | None = None) -> go.Figure:
    """A line per trial through its values, its loss at the first rung and its place, the best on top.

    Trials without a loss at that rung are left out. Losses far out stand at their axis' upper end.
    """
    figure = go.Figure()
    dress(figure, "Which values led where", height=560)
    arrivals = losses_of(outcomes).count()
    if not arrivals.any():
        return without_losses(figure)
    first = rungs_of(outcomes)[int(np.argmax(arrivals))]
    # Where the length is searched there is no rung that all have reached.
    shared = arrivals[first] == outcomes["loss"].notna().sum()
    column, label = (f"loss_{first}", f"loss {placed(first, folds)}") if shared else ("loss", "last loss")
    trials = outcomes[outcomes[column].notna()]
    places = trials["place"].astype(int)
    dimensions = [_dimension(axis, trials[axis.name].tolist()) for axis in axes]
    dimensions += [_loss_dimension(trials[column], label), _place_dimension(places)]
    crowded = len(dimensions) > UPRIGHT
    letters = WIDTH // (len(dimensions) - 1) // LETTER
    for dimension in dimensions:
        # Plotly has room for two lines above an axis, a third would lie on it.
        lines = [dimension["label"]] if crowded else wrap(dimension["label"], letters)
        dimension["label"] = "<br>".join(lines)
        dimension["ticktext"] = [_cut(text, letters) for text in dimension["ticktext"]]
    figure.add_parcoords(
        dimensions=dimensions,
        line={
            "color": places,
            "colorscale": PLACES,
            "cmin": 1,
            "cmax": max(int(places.max()), 2),
            "showscale": False,
        },
        labelangle=-30 if crowded else 0,
        labelfont={**FONT, "size": 14} if crowded else FONT,
        tickfont={**FONT, "size": 13},
        # Plotly writes the ends of every axis a second time.
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
    )
    margin = {"l": 100, "r": 110, "t": 140, "b": 30} if crowded else {"l": 100, "r": 50, "t": 106, "b": 30}
    figure.update_layout(margin=margin)
    return figure


def _dimension(axis: Axis, values: list[Any]) -> dict[str, Any]:
    if axis.discrete:
        # Where its condition did not hold, a parameter may stand at a value that is no choice.
        choices = dict.fromkeys([*axis.choices, *values])
        ordered = sorted(choices) if axis.scale == "ordered" else list(choices)
        at = [float(ordered.index(value)) for value in values]
        return _scale(axis.title, at, dict(enumerate(map(shown, ordered))))
    low, high = min(axis.low, *values), max(axis.high, *values)
    ends = {low: shown(low), high: shown(high)}
    if axis.scale == "linear":
        return _scale(axis.title, values, _with_ends(even(low, high), ends))
    ticks = decades(low, high)
    ticks["tickvals"] = np.log10(ticks["tickvals"])
    ends = {float(np.log10(end)): text for end, text in ends.items()}
    return _scale(axis.title, np.log10(values).tolist(), _with_ends(ticks, ends))


def _loss_dimension(drawn: pd.Series[float], label: str) -> dict[str, Any]:
    floor, ceiling = float(drawn.min()), ceiling_of(drawn.to_frame())
    ticks = _with_ends(even(floor, ceiling), {floor: f"{floor:.4g}", ceiling: f"{ceiling:.4g}"})
    if drawn.max() <= ceiling:
        return _scale(label, drawn.tolist(), ticks)
    pad = pad_of(floor, ceiling)
    edge = ceiling + pad
    dimension = _scale(label, drawn.clip(upper=edge).tolist(), {**ticks, edge: "higher"})
    # The tick's text would touch the label above it.
    return {**dimension, "range": [floor, edge + pad / 2]}


def _place_dimension(places: pd.Series[int]) -> dict[str, Any]:
    last = int(places.max())
    ticks = even(0, last, most=min(last, 12))
    dimension = _scale("place", places.tolist(), _with_ends(ticks, {1: "1", last: f"{last}"}))
    return {**dimension, "range": dimension["range"][::-1]}


def _scale(label: str, values: Sequence[float], ticks: Mapping[float, str]) -> dict[str, Any]:
    """A dimension that reaches from its lowest tick to its highest; one alone stands in the middle."""
    low, high = min(ticks), max(ticks)
    if low == high:
        low, high = low - 1.0, high + 1.0
    return {
        "label": label,
        "values": values,
        "range": [low, high],
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
    }


def _with_ends(ticks: Mapping[str, Any], ends: Mapping[float, str]) -> dict[float, str]:
    """The ends' ticks, since plotly draws an axis from its first tick to its last, and those between."""
    low, high = min(ends), max(ends)
    near = END_GAP * (high - low)
    inner = zip(ticks["tickvals"], ticks["ticktext"], strict=True)
    return {**ends, **{float(at): text for at, text in inner if low + near < at < high - near}}


def _cut(label: str, letters: int) -> str:
    return label if len(label) <= letters else f"{label[: letters - 1]}…"
