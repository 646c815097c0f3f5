"""The table of all trials, as its columns and cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sweep.analysis.axes import shown, title
from sweep.analysis.outcomes import rungs_of
from sweep.reporting.live import duration
from sweep.search.stored import StoredStudy


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


def columns_of(study: StoredStudy, table: pd.DataFrame) -> list[Column]:
    """In the order of the page: each rung's loss, or the last one where the length is searched."""
    losses = {f"loss at {rung:,}": f"loss_{rung}" for rung in rungs_of(table)}
    if study.folds is not None:
        losses = {"mean loss": "loss"} | {f"fold {fold}": f"loss_{fold}" for fold in rungs_of(table)}
    elif "epochs" in study.names:
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


def row_of(trial: pd.Series[Any], columns: Sequence[Column]) -> list[Cell]:
    """The cells of one trial."""
    return [_cell(trial[column.name], column) for column in columns]


def _is_number(column: pd.Series[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _cell(value: Any, column: Column) -> Cell:
    if column.numeric and pd.isna(value):
        return Cell(column.missing)
    text = column.text(value)
    return Cell(text, float(value) if column.numeric else text)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB" if count else "-"
