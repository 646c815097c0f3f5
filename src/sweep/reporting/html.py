"""The report of a sweep: one HTML file that needs nothing else to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from plotly.offline import get_plotlyjs

from sweep.analysis.axes import shown, title
from sweep.analysis.effects import Effects
from sweep.analysis.outcomes import outcomes, rungs_of
from sweep.paths import write_whole
from sweep.reporting.curves import curves_figure
from sweep.reporting.live import duration
from sweep.reporting.parallel import parallel_figure
from sweep.reporting.plots import importance_figure, interaction_figure, surface_figure
from sweep.reporting.summary import comparison_of, points_of, verdict_of
from sweep.search.stored import StoredStudy

# Pixels of a figure's own title.
_TITLE = 42
_STATES = ("complete", "running", "paused", "pruned", "diverged", "infeasible", "failed")


class Column(NamedTuple):
    """A column of the trials table. name: of the outcomes. numeric: how it is sorted.

    text: of a value; missing: where there is none.
    """

    heading: str
    name: str
    numeric: bool
    text: Callable[[Any], str]
    missing: str = ""


class Cell(NamedTuple):
    """A cell of the trials table: its text, and what it is sorted by, nothing where it has no value."""

    text: str
    order: float | str = ""


def write_report(study: StoredStudy, effects: Effects, folder: Path) -> Path:
    """The report as `report.html` in the folder, written whole or not at all."""
    path = folder / "report.html"
    write_whole(path, render(study, effects))
    return path


def render(study: StoredStudy, effects: Effects) -> str:
    """The report as HTML: figures are drawn by the plotly.js inside it, texts are escaped."""
    table = outcomes(study.standings, study.names)
    columns = _columns(study, table)
    context = {
        "study": study,
        "notes": study.notes,
        "verdict": verdict_of(study),
        "points": points_of(study, effects),
        "tiles": _tiles(study, table),
        "comparison": comparison_of(study),
        "space": _space(study),
        "facts": _facts(study),
        "effects": effects,
        "importance": None if effects.r_squared is None else _figure(importance_figure(effects.importances)),
        "interactions": _figure(interaction_figure(effects.interactions, effects.importances))
        if effects.surfaces
        else None,
        "surfaces": [
            (
                drawn.reading,
                _figure(surface_figure(drawn.loss, drawn.first, drawn.second, trials=effects.trials)),
            )
            for drawn in effects.surfaces
        ],
        "judged": _judged(study),
        "curves": _figure(curves_figure(table)),
        "parallel": _figure(parallel_figure(table, effects.axes)),
        "columns": columns,
        "rows": [_row(trial, columns) for _, trial in table.sort_values("place").iterrows()],
        "plotly": get_plotlyjs(),
    }
    return str(_template().render(context))


@cache
def _template() -> Any:
    text = (resources.files("sweep.reporting") / "report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _figure(figure: go.Figure) -> str:
    """The figure as a piece of HTML, as wide as the page, whose headings say what it shows."""
    figure = go.Figure(figure).update_layout(width=None, autosize=True, title=None)
    figure.update_layout(margin_t=figure.layout.margin.t - _TITLE)
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, config={"responsive": True, "displayModeBar": False}
        )
    )


# What was searched and how it went


def _tiles(study: StoredStudy, table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Label, number, what stands below it."""
    counts = table["state"].value_counts()
    states = ", ".join(f"{counts[state]} {state}" for state in _STATES if state in counts)
    tiles = [("trials", f"{len(table)} of {study.trials}", states)]
    best = study.best
    if best is not None:
        tiles.insert(0, ("best validation loss", f"{best.loss:.3f}", f"trial {best.trial.id}"))
    tokens = int(table["tokens"].sum())
    bound = f"of {duration(study.seconds)} for searching" if study.seconds else "no limit was given"
    tiles.append(("time of the search", duration(study.seconds_spent), bound))
    tiles.append(("tokens trained", f"{tokens:,}", f"in {int(table['examples_seen'].sum()):,} examples"))
    return tiles


def _space(study: StoredStudy) -> list[tuple[str, str, str, str]]:
    """Parameter, values, scale, the defaults' value."""
    return [
        (title(name), _values(form), _scale(form), _default(study, name))
        for name, form in study.space.to_mapping().items()
    ]


def _values(form: Mapping[str, Any]) -> str:
    when = f", when {form['when']}" if "when" in form else ""
    if "choices" in form:
        named = (f"[{shown(c)}]" if isinstance(c, list) else shown(c) for c in form["choices"])
        return ", ".join(named) + when
    steps = f" in steps of {shown(form['step'])}" if "step" in form else ""
    return f"{shown(form['low'])} to {shown(form['high'])}{steps}{when}"


def _scale(form: Mapping[str, Any]) -> str:
    return "choices" if "choices" in form else "log" if form["log"] else "linear"


def _default(study: StoredStudy, name: str) -> str:
    return shown(getattr(study.standings[0].trial.recipe, name)) if study.standings else "-"


def _facts(study: StoredStudy) -> list[tuple[str, str]]:
    facts = [("base model", study.base)]
    asked = study.notes.asked
    if asked is not None:
        sizes = ", ".join(f"{name} {count}" for name, count in asked.rows.items())
        facts += [
            ("data", f"{asked.data}: {sum(asked.rows.values())} rows ({sizes})"),
            ("sampler", asked.sampler),
            ("scheduler", asked.scheduler),
        ]
    limit = f", {duration(study.seconds)} of search" if study.seconds else ""
    facts += [
        ("rungs", _judged(study)),
        ("budget", f"{study.trials} trials{limit}"),
        ("seed", str(study.seed)),
    ]
    if asked is not None:
        facts += [
            ("command", asked.command),
            ("git commit", asked.git_commit or "none: not in a repository"),
        ]
    return facts


def _judged(study: StoredStudy) -> str:
    """When trials are judged, and on how much: where their length is searched, each at its own end too."""
    if "epochs" in study.names:
        return "Each trial is judged at the end of its own epochs."
    rungs = ", ".join(f"{rung:,}" for rung in study.ladder)
    judged = f"Each trial is judged after {rungs} examples"
    if len(set(study.judged_on)) == 1:
        return f"{judged}."
    rows = ", ".join("all" if rows is None else str(rows) for rows in study.judged_on)
    return (
        f"{judged}, on {rows} validation rows. Losses compare within a rung; from rung to rung a curve also "
        "moves because rows are added."
    )


# All trials


def _columns(study: StoredStudy, table: pd.DataFrame) -> list[Column]:
    """In the order of the page: each rung's loss, or the last one where the length is searched."""
    losses = {f"loss at {rung:,}": f"loss_{rung}" for rung in rungs_of(table)}
    if "epochs" in study.names:
        losses = {"last loss": "loss"}
    return [
        Column("place", "place", True, str, missing="-"),
        Column("trial", "trial", True, str),
        Column("state", "state", False, str),
        *(Column(title(name), name, _is_number(table[name]), shown) for name in study.names),
        *(Column(heading, name, True, "{:.4f}".format) for heading, name in losses.items()),
        Column("what became of it", "reason", False, str),
        Column("time", "seconds", True, duration),
        Column("memory", "peak_bytes", True, _size),
    ]


def _is_number(column: pd.Series[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _row(trial: pd.Series[Any], columns: Sequence[Column]) -> list[Cell]:
    return [_cell(trial[column.name], column) for column in columns]


def _cell(value: Any, column: Column) -> Cell:
    if column.numeric and pd.isna(value):
        return Cell(column.missing)
    text = column.text(value)
    return Cell(text, float(value) if column.numeric else text)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB" if count else "-"
