"""How each trial's loss fell: a figure of the outcomes table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from sweep.analysis.axes import shown, title
from sweep.analysis.outcomes import ceiling_of, losses_of, names_of, placed, rungs_of
from sweep.reporting.style import BLUE, ORANGE, RED, dress, pad_of, without_losses

PALE_BLUE, GREY = "#7FB3D9", "#9A9A9A"
# What a point says when pointed at, by trial and rung.
Texts = Mapping[tuple[int, int], str]
BROKEN = ("diverged", "infeasible", "failed")
UNFINISHED = ("running", "paused")
# Shares of a figure's width or height: between rungs' labels, between crosses.
LABEL_GAP, CROSS_GAP = 0.06, 0.045


@dataclass(frozen=True, kw_only=True)
class _Style:
    """How a group of trials is drawn. end: size of the dot at the last rung. rank: in the legend."""

    colour: str
    width: float
    end: int
    rank: int
    dash: str = "solid"
    marker: Mapping[str, Any] = field(default_factory=dict)


RINGED = {"line": {"color": "white", "width": 1.5}}
# In the order of drawing: what matters most lies on top.
STYLES = {
    "stopped early": _Style(colour=GREY, width=1, end=6, rank=4),
    "broken": _Style(colour=GREY, width=1, end=0, rank=9),
    "unfinished": _Style(
        colour=GREY, width=1, end=9, rank=5, marker={"symbol": "circle-open", "line_width": 1.5}
    ),
    "ran to the end": _Style(colour=PALE_BLUE, width=1.3, end=6, rank=3),
    "best": _Style(colour=BLUE, width=5, end=12, rank=1, marker=RINGED),
    "defaults": _Style(colour=ORANGE, width=3, end=9, rank=2, dash="8px,5px", marker=RINGED),
}


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What a figure of curves shows. left, right: log10 of examples seen, or folds. low, high: losses.

    edge: where losses above `high` are marked. lost: where trials without a loss stand, like `left`; None
    without such.
    """

    left: float
    right: float
    low: float
    high: float
    edge: float
    lost: float | None
    folds: int | None

    def along(self, rungs: Sequence[float]) -> NDArray[np.float64]:
        """Where rungs lie between left and right."""
        return np.log10(rungs) if self.folds is None else np.asarray(rungs, dtype=float)

    def rung(self, place: float) -> float:
        """The rung that lies there."""
        return 10**place if self.folds is None else place


def curves_figure(outcomes: pd.DataFrame, *, folds: int | None = None) -> go.Figure:
    """Validation loss by examples seen, or by fold, a line per trial through its rungs.

    Losses far out at their rung are marked at the upper edge. Trials that broke end in a cross, at
    the left edge where they have no loss.
    """
    figure = go.Figure()
    dress(figure, "How each trial's loss fell" if folds is None else "Each trial's loss by fold", height=560)
    losses = losses_of(outcomes)
    if not losses.notna().any(axis=None):
        return without_losses(figure)
    frame, texts = _frame(outcomes, folds), _texts(outcomes, folds)
    for name, members in _groups(outcomes).items():
        if members.any():
            _add_lines(figure, name, outcomes[members], texts)
    _add_exceeding(figure, outcomes, frame, texts)
    _add_crosses(figure, outcomes, frame, texts)
    ticks = [float(rung) for rung in _labelled(losses, frame)]
    labels = [f"{rung:,.0f}" for rung in ticks]
    if frame.lost is not None:
        ticks, labels = [frame.rung(frame.lost), *ticks], ["no loss", *labels]
    title, kind = ("examples seen, log scale", "log") if folds is None else (f"fold, of {folds}", "linear")
    figure.update_xaxes(title_text=title, type=kind, range=[frame.left, frame.right])
    figure.update_xaxes(tickvals=ticks, ticktext=labels)
    figure.update_yaxes(title_text="validation loss, nats per token", range=[frame.low, frame.high])
    return figure


def _frame(outcomes: pd.DataFrame, folds: int | None) -> _Frame:
    losses = losses_of(outcomes)
    ends = np.array([losses.columns[0], losses.columns[-1]], dtype=float)
    first, last = np.log10(ends) if folds is None else ends
    width = (last - first) or 1.0
    floor, ceiling = float(np.nanmin(losses)), ceiling_of(losses)
    pad = pad_of(floor, ceiling)
    lost = first - 0.12 * width if (_broken(outcomes) & outcomes["loss"].isna()).any() else None
    return _Frame(
        left=float((first if lost is None else lost) - 0.06 * width),
        right=float(last + 0.06 * width),
        low=floor - pad,
        high=ceiling + pad,
        edge=ceiling + pad / 2,
        lost=None if lost is None else float(lost),
        folds=folds,
    )


def _groups(outcomes: pd.DataFrame) -> dict[str, pd.Series[bool]]:
    """Which trials with a loss each style draws. Trial 0 is in two where it is the best."""
    state, drawn = outcomes["state"], outcomes["loss"].notna()
    best, defaults = (outcomes["place"] == 1).fillna(False).astype(bool), outcomes["trial"] == 0
    others = drawn & ~best & ~defaults
    return {
        "stopped early": others & (state == "pruned"),
        "broken": others & _broken(outcomes),
        "unfinished": others & state.isin(UNFINISHED),
        "ran to the end": others & (state == "complete"),
        "best": best,
        "defaults": drawn & defaults,
    }


def _broken(outcomes: pd.DataFrame) -> pd.Series[bool]:
    return outcomes["state"].isin(BROKEN)


def _add_lines(figure: go.Figure, name: str, trials: pd.DataFrame, texts: Texts) -> None:
    style = STYLES[name]
    x: list[float | None] = []
    y: list[float | None] = []
    size: list[int] = []
    text: list[str] = []
    # One trace per group, a gap after each trial: a trace per trial takes seconds to draw at 128.
    for trial, (_, curve) in zip(trials["trial"], losses_of(trials).iterrows(), strict=True):
        seen = curve.dropna()
        x += [*seen.index, None]
        y += [*seen, None]
        size += [*[0] * (len(seen) - 1), style.end, 0]
        text += [*(texts[trial, rung] for rung in seen.index), ""]
    one = trials.iloc[0]
    named = name in ("best", "defaults")
    figure.add_scatter(
        x=x,
        y=y,
        text=text,
        mode="lines+markers",
        name=f"{name}: trial {one['trial']}, {one['loss']:.3f}" if named else f"{name} ({len(trials)})",
        line={"color": style.colour, "width": style.width, "dash": style.dash},
        marker={"size": size, "color": style.colour, "opacity": 1, **(style.marker or {"line_width": 0})},
        legendrank=style.rank,
        showlegend=name != "broken",
        hovertemplate="%{text}<extra></extra>",
    )


def _add_crosses(figure: go.Figure, outcomes: pd.DataFrame, frame: _Frame, texts: Texts) -> None:
    broken = outcomes[_broken(outcomes)]
    if broken.empty:
        return
    at = losses_of(broken)
    last = pd.Series({row: at.at[row, rung] if rung else np.nan for row, rung in broken["rung"].items()})
    lost = last.isna()
    gap = (frame.high - frame.low) * min(CROSS_GAP, 0.9 / max(int(lost.sum()), 1))
    column = frame.high - gap * lost.cumsum()
    figure.add_scatter(
        x=broken["rung"].where(~lost, frame.rung(frame.lost or 0.0)),
        y=last.mask(last > frame.high, frame.edge).where(~lost, column),
        text=[texts[key] for key in zip(broken["trial"], broken["rung"], strict=True)],
        mode="markers",
        name=f"{' or '.join(state for state in BROKEN if (broken['state'] == state).any())} ({len(broken)})",
        marker={"symbol": "x", "size": 10, "color": RED, "line": {"color": "white", "width": 1}},
        legendrank=6,
        hovertemplate="%{text}<extra></extra>",
    )


def _add_exceeding(figure: go.Figure, outcomes: pd.DataFrame, frame: _Frame, texts: Texts) -> None:
    losses = losses_of(outcomes.set_index("trial"))
    beyond = losses.where(losses > frame.high).stack().dropna()
    if beyond.empty:
        return
    figure.add_scatter(
        x=[rung for _, rung in beyond.index],
        y=[frame.edge] * len(beyond),
        text=[texts[key] for key in beyond.index],
        mode="markers",
        marker={"symbol": "triangle-up", "size": 11, "color": GREY},
        showlegend=False,
        hovertemplate="%{text}<extra></extra>",
    )
    count = f"{len(beyond)} losses" if len(beyond) > 1 else "1 loss"
    figure.add_annotation(
        text=f"▲ {count} above {frame.high:.4g}, up to {beyond.max():.4g}",
        xref="paper",
        yref="paper",
        x=1.0,
        y=0.0,
        xanchor="right",
        yanchor="top",
        yshift=-34,
        showarrow=False,
        font={"size": 14},
    )


def _texts(outcomes: pd.DataFrame, folds: int | None) -> Texts:
    names, rungs = names_of(outcomes), rungs_of(outcomes)
    texts = {}
    for trial in outcomes.to_dict("records"):
        values = [f"{title(name)} {shown(trial[name])}" for name in names]
        number, reached = trial["trial"], trial["rung"]
        for rung in (0, *rungs):
            loss = [f"loss {trial[f'loss_{rung}']:.4f} {placed(rung, folds)}"] if rung else ["no loss"]
            end = [escape(trial["reason"])] if rung == reached else []
            texts[number, rung] = "<br>".join([f"<b>trial {number}</b>", *loss, *values, *end])
    return texts


def _labelled(losses: pd.DataFrame, frame: _Frame) -> list[int]:
    """Rungs whose labels don't meet, those that most trials reached first."""
    kept: list[int] = []
    for rung in losses.count().sort_values(ascending=False, kind="stable").index:
        gaps = np.abs(frame.along([rung]) - frame.along(kept)).tolist()
        if min(gaps, default=np.inf) >= LABEL_GAP * (frame.right - frame.left):
            kept.append(rung)
    return sorted(kept)
