"""What the trials of a front trade for one another: sentences, a table, a figure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweep.analysis.axes import sentence, shown, title
from sweep.analysis.front import front_of
from sweep.analysis.trades import BEATEN, FRONT, KNEE, UNFIT, aims_of, column_of
from sweep.evaluation.confirmation import Confirmation
from sweep.reporting.style import BLUE, INK, RED, dress
from sweep.reporting.summary import amount
from sweep.types import Aimed, Standing

GREY = "#B0B0B0"
_WIDEST = 3
# By role: how its points are called, their symbol, size and colour; drawn in this order.
_DRAWN: Mapping[str, tuple[str, str, int, str]] = {
    UNFIT: ("fails its guards", "x", 8, GREY),
    BEATEN: ("beaten in every aim, or equalled", "circle", 8, GREY),
    FRONT: ("the front", "circle", 11, BLUE),
    KNEE: ("the knee", "star", 18, RED),
}


def trade_sentences(standings: Sequence[Standing], confirmation: Confirmation | None) -> list[str]:
    """Which trial is the knee, what it gives up, and who was chosen after all; none with one aim."""
    front = front_of(standings)
    if not front:
        return []
    guarded = any(one.aims and one.broken for one in standings)
    told = [f"{_found(front, guarded=guarded)} {_given_up(front)}"]
    if confirmation is not None:
        value = f"its {title(confirmation.objective)} on confirm rows"
        told.append(
            f"The knee was chosen among the finalists too, by {value}."
            if confirmation.trial == confirmation.leader
            else f"The knee leads the search; among finalists trial {confirmation.trial} won, by {value}."
        )
    return told


def front_headings(standings: Sequence[Standing], names: Sequence[str]) -> list[str]:
    """Of the columns of `front_rows`."""
    return ["trial", *map(heading_of, aims_of(standings)), *map(title, names), ""]


def front_rows(standings: Sequence[Standing], names: Sequence[str]) -> list[list[str]]:
    """The front: each aim's value and by how much it differs from the knee's, parameters, what a trial is.

    The defaults stand last, also where they are beaten.
    """
    front = front_of(standings)
    if not front:
        return []
    defaults = [one for one in standings if one.trial.number == 0 and one.aims and one not in front]
    return [
        [
            one.trial.id,
            *(_traded(ours, knee) for ours, knee in zip(one.aims, front[0].aims, strict=True)),
            *(shown(getattr(one.trial.recipe, name)) for name in names),
            _called(one, front),
        ]
        for one in (*front, *defaults)
    ]


def heading_of(aim: Aimed) -> str:
    """The aim, its unit, and an arrow that points where it is better."""
    return f"{title(aim.aim)}, {aim.unit} {'↑' if aim.higher_is_better else '↓'}"


def trades_figure(table: pd.DataFrame, aims: Sequence[Aimed]) -> go.Figure:
    """A panel for each pair of aims, trials as points; of two aims with the front as a line.

    table: `trades`. The defaults are ringed.
    """
    pairs = list(combinations(aims, 2))
    wide = min(len(pairs), _WIDEST)
    tall = -(-len(pairs) // wide)
    figure = make_subplots(rows=tall, cols=wide, horizontal_spacing=0.09, vertical_spacing=0.16)
    names = [name for name in table.columns if name not in ("trial", "role", *map(column_of, aims))]
    for at, (across, up) in enumerate(pairs):
        place = {"row": at // wide + 1, "col": at % wide + 1}
        if len(aims) == 2:
            _draw_line(figure, table, across, up)
        for role, (label, symbol, size, colour) in _DRAWN.items():
            rows = table[table["role"] == role]
            if rows.empty:
                continue
            figure.add_scatter(
                **place,
                x=rows[column_of(across)],
                y=rows[column_of(up)],
                mode="markers",
                name=label,
                legendgroup=role,
                showlegend=at == 0,
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": colour,
                    "line": {"color": "white", "width": 1},
                },
                text=[_hover(row, aims, names) for row in rows.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
            )
        _ring_defaults(figure, table, across, up, place, showlegend=at == 0)
        figure.update_xaxes(title_text=_axis(across), **place)
        figure.update_yaxes(title_text=_axis(up), **place)
    dress(figure, "What trials trade", height=150 + 390 * tall)
    return figure


def _found(front: Sequence[Standing], *, guarded: bool) -> str:
    others = "other that holds to its guards" if guarded else "other"
    if len(front) == 1:
        return f"Trial {front[0].trial.id} is as good as every {others} in each aim, or better, so it leads."
    return (
        f"{len(front)} trials are beaten by no {others} in every aim. Of these trial {front[0].trial.id} "
        "leads, the knee: the best balance of the aims, each scaled by its range on the front."
    )


def _given_up(front: Sequence[Standing]) -> str:
    """What the knee lacks to the best of the front in each aim."""
    lacking, best_in = [], []
    for at, aim in enumerate(front[0].aims):
        best = (max if aim.higher_is_better else min)(front, key=lambda one: one.aims[at].value)
        lost = abs(best.aims[at].value - aim.value)
        if lost:
            lacking.append(f"{amount(lost)} {aim.unit} of {title(aim.aim)} (trial {best.trial.id} is best)")
        else:
            best_in.append(title(aim.aim))
    told = [f"it gives up {' and '.join(lacking)}"] if lacking else []
    told += [f"none has a better {' or '.join(best_in)}"] if best_in else []
    return sentence(f"{'; '.join(told)}.")


def _called(standing: Standing, front: Sequence[Standing]) -> str:
    words = ["the knee"] if standing is front[0] else []
    words += ["defaults"] if standing.trial.number == 0 else []
    words += [] if standing in front else ["not on the front"]
    words += [f"fails guard {', '.join(standing.broken)}"] if standing.broken else []
    return ", ".join(words)


def _traded(ours: Aimed, knee: Aimed) -> str:
    difference = ours.value - knee.value
    if not difference:
        return amount(ours.value)
    sign = "+" if difference > 0 else "-"
    return f"{amount(ours.value)} ({sign}{amount(abs(difference))})"


def _axis(aim: Aimed) -> str:
    arrow = "→" if aim.higher_is_better else "←"
    return f"{escape(title(aim.aim))}, {escape(aim.unit)} ({arrow} better)"


def _hover(row: Mapping[Hashable, Any], aims: Sequence[Aimed], names: Sequence[str]) -> str:
    told = [f"{escape(title(aim.aim))} {amount(row[column_of(aim)])} {escape(aim.unit)}" for aim in aims]
    values = [f"{escape(title(name))} {escape(shown(row[name]))}" for name in names]
    return "<br>".join([f"<b>trial {row['trial']}</b>, {row['role']}", *told, *values])


def _draw_line(figure: go.Figure, table: pd.DataFrame, across: Aimed, up: Aimed) -> None:
    """From point to point of the front: nothing was tried between them."""
    front = table[table["role"].isin([KNEE, FRONT])].sort_values([column_of(across), column_of(up)])
    figure.add_scatter(
        x=front[column_of(across)],
        y=front[column_of(up)],
        mode="lines",
        line={"color": BLUE, "width": 1.5, "dash": "4px,3px"},
        showlegend=False,
        hoverinfo="skip",
    )


def _ring_defaults(
    figure: go.Figure,
    table: pd.DataFrame,
    across: Aimed,
    up: Aimed,
    place: Mapping[str, int],
    *,
    showlegend: bool,
) -> None:
    rows = table[table["trial"] == 0]
    if rows.empty:
        return
    figure.add_scatter(
        **place,
        x=rows[column_of(across)],
        y=rows[column_of(up)],
        mode="markers",
        name="defaults",
        legendgroup="defaults",
        showlegend=showlegend,
        marker={"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 2}},
        hoverinfo="skip",
    )
