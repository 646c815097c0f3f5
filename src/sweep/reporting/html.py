"""The report of a sweep: one HTML file that needs nothing else to be read."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
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
        "columns": _columns(study, table),
        "rows": [_row(table.loc[index], study, table) for index in table.sort_values("place").index],
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
            ("command", shlex.join(["python", "-m", "sweep", *asked.overrides])),
            ("git commit", asked.git_commit or "none: not in a repository"),
        ]
    return facts


def _judged(study: StoredStudy) -> str:
    """When trials are judged: where their length is searched, each at its own end too."""
    rungs = ", ".join(f"{rung:,}" for rung in study.ladder)
    if "epochs" in study.names:
        return "Each trial is judged at the end of its own epochs."
    return f"Each trial is judged after {rungs} examples."


# All trials


def _columns(study: StoredStudy, table: pd.DataFrame) -> list[tuple[str, bool]]:
    """Heading, and whether the column holds numbers."""
    losses = [(heading, True) for heading in _loss_columns(study, table)]
    searched = [(title(name), not _is_text(table[name])) for name in study.names]
    costs = [("what became of it", False), ("time", True), ("memory", True)]
    return [("place", True), ("trial", True), ("state", False), *searched, *losses, *costs]


def _loss_columns(study: StoredStudy, table: pd.DataFrame) -> dict[str, str]:
    """Columns of the outcomes by heading: each rung's loss, or the last where the length is searched."""
    if "epochs" in study.names:
        return {"last loss": "loss"}
    return {f"loss at {rung:,}": f"loss_{rung}" for rung in rungs_of(table)}


def _is_text(column: pd.Series[Any]) -> bool:
    return not all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _row(trial: pd.Series[Any], study: StoredStudy, table: pd.DataFrame) -> list[Cell]:
    losses = [trial[column] for column in _loss_columns(study, table).values()]
    return [
        Cell("-") if pd.isna(trial["place"]) else _number(trial["place"], str(trial["place"])),
        _number(trial["trial"], str(trial["trial"])),
        Cell(trial["state"], trial["state"]),
        *(_value(trial[name], _is_text(table[name])) for name in study.names),
        *(Cell("") if math.isnan(loss) else _number(loss, f"{loss:.4f}") for loss in losses),
        Cell(trial["reason"], trial["reason"]),
        _number(trial["seconds"], duration(trial["seconds"])),
        _number(trial["peak_bytes"], _size(trial["peak_bytes"])),
    ]


def _value(value: Any, is_text: bool) -> Cell:
    return Cell(shown(value), shown(value) if is_text else float(value))


def _number(value: float, text: str) -> Cell:
    return Cell(text, float(value))


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB" if count else "-"
