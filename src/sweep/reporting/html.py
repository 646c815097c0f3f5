"""The report of a sweep: one HTML file that needs nothing else to be read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FunctionLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from sweep.analysis.axes import shown, title
from sweep.analysis.effects import Effects
from sweep.analysis.outcomes import outcomes
from sweep.analysis.trades import aims_of, trades
from sweep.analysis.ways import ways_of
from sweep.paths import write_whole
from sweep.reporting.curves import curves_figure
from sweep.reporting.live import duration
from sweep.reporting.parallel import parallel_figure
from sweep.reporting.plots import importance_figure, interaction_figure, surface_figure
from sweep.reporting.spending import budget_of, hours_of, used_of
from sweep.reporting.steps import steps_of
from sweep.reporting.story import (
    baselines_of,
    checks_of,
    data_sentence,
    goal_sentences,
    slices_of,
    worth_of,
)
from sweep.reporting.summary import caveats_of, comparison_of, points_of, refusal_of, verdict_of
from sweep.reporting.trades import front_headings, front_rows, trade_sentences, trades_figure
from sweep.reporting.trials import columns_of, row_of
from sweep.reporting.ways import ways_figure
from sweep.search.stored import StoredStudy

# Pixels of a figure's own title.
_TITLE = 42
_STATES = ("complete", "running", "paused", "pruned", "diverged", "infeasible", "failed")


def write_report(study: StoredStudy, effects: Effects, folder: Path) -> Path:
    """The report as `report.html` in the folder, written whole or not at all."""
    path = folder / "report.html"
    write_whole(path, render(study, effects))
    return path


def render(study: StoredStudy, effects: Effects) -> str:
    """The report as HTML: figures are drawn by the plotly.js inside it, texts are escaped."""
    return str(_environment().get_template("report.html.jinja").render(_told(study, effects)))


def _told(study: StoredStudy, effects: Effects) -> dict[str, Any]:
    table = outcomes(study.standings, study.names)
    columns = columns_of(study, table)
    return {
        **_story(study),
        "study": study,
        "notes": study.notes,
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
        "curves": _figure(curves_figure(table, folds=study.folds)),
        "parallel": _figure(parallel_figure(table, effects.axes, folds=study.folds)),
        "columns": columns,
        "rows": [row_of(trial, columns) for _, trial in table.sort_values("place").iterrows()],
        "plotly": get_plotlyjs(),
    }


def _story(study: StoredStudy) -> dict[str, Any]:
    """From the goal to what to do next; None and empty where the sweep has not come so far."""
    notes, confirmation, goal = study.notes, study.confirmation, study.notes.goal
    headings, baselines = baselines_of(study)
    return {
        "goal": goal_sentences(goal) if goal else [],
        "verdict": verdict_of(study),
        "refusal": refusal_of(study.standings),
        "worth": worth_of(confirmation, goal) if confirmation else [],
        "caveats": caveats_of(confirmation, goal) if confirmation else [],
        "data": data_sentence(notes.audit) if notes.audit else "The data was not checked.",
        "headings": headings,
        "baselines": baselines,
        "ways": _figure(ways_figure(ways_of(notes.baselines or (), confirmation), goal))
        if goal and (notes.baselines or confirmation)
        else None,
        "confirmation": confirmation,
        "checks": checks_of(confirmation) if confirmation else [],
        "slices": slices_of(confirmation) if confirmation else [],
        "steps": steps_of(study),
        **_trades(study),
    }


def _trades(study: StoredStudy) -> dict[str, Any]:
    """What trials trade; empty where the search has one aim, or no trial has come to its end."""
    standings, names = study.standings, study.names
    rows = front_rows(standings, names)
    return {
        "trades": trade_sentences(standings, study.confirmation),
        "front_headings": front_headings(standings, names),
        "front": rows,
        "front_drawn": _figure(trades_figure(trades(standings, names), aims_of(standings))) if rows else None,
    }


@cache
def _environment() -> Environment:
    folder = resources.files("sweep.reporting")
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
        below = f"of the knee, trial {best.trial.id}" if best.aims else f"trial {best.trial.id}"
        tiles.insert(
            0, ("validation loss" if best.aims else "best validation loss", f"{best.loss:.3f}", below)
        )
    tokens = int(table["tokens"].sum())
    used = used_of(study.bounds, study.spent)
    whole = used.get("minutes", duration(study.spent.seconds))
    tiles.append(("time of the search", duration(study.seconds_spent), f"{whole} for the whole sweep"))
    hours, _, limit = used.get("gpu_hours", hours_of(study.spent)).partition(" of ")
    limits = [f"of {limit}"] if limit else []
    limits += [used["cost"]] if "cost" in used else []
    tiles.append(("device hours", hours, "; ".join(limits) or "no limit was given"))
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
    facts += [
        ("folds" if study.folds else "rungs", _judged(study)),
        ("budget", budget_of(study)),
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
    if study.folds is not None:
        epochs = "its own epochs" if "epochs" in study.names else f"{study.ladder[0]:,} examples"
        return (
            f"Each trial is trained anew for each of {study.folds} folds, {epochs} of the other folds' rows, "
            f"and judged on {study.judged_on[0]} rows of that fold at most. Its loss is the folds' mean."
        )
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
