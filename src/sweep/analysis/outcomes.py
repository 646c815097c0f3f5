"""What became of each trial of a search, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sweep.types import Standing

COST = ("seconds", "tokens", "peak_bytes")
FIXED = ("trial", "state", "place", "rung", "examples_seen", "loss", "reason", *COST)
_LOSS = "loss_"


def outcomes(standings: Sequence[Standing], names: Sequence[str]) -> pd.DataFrame:
    """One row per trial of the search in order of number: `FIXED`, a column per rung, one per name.

    place: 1 is best; complete trials by their loss, then others by how far they got and the loss
    there, ties to the older one; <NA> without a loss. rung: the last one with a finite loss, as
    `Standing.steps` counts them, else 0; examples_seen, loss: there, else 0 and NaN; of a complete trial the
    loss that counts, of folds their mean so far. reason: a fragment of a sentence. seconds, tokens: over all
    reports. peak_bytes: their largest. loss_<rung>: at each rung that any trial reached, ascending; NaN where
    not reached.
    """
    search = sorted((s for s in standings if s.trial.number is not None), key=lambda s: s.trial.number or 0)
    curves = [_finite_losses(standing) for standing in search]
    rungs = sorted({rung for curve in curves for rung in curve})
    losses = pd.DataFrame(curves, columns=rungs, dtype=float)
    ranks, arrivals = losses.rank(method="first"), losses.count()
    rows = []
    for standing, curve, row in zip(search, curves, ranks.index, strict=True):
        reached = max(curve, default=0)
        counts = standing.state == "complete" or (standing.folds and reached)
        rank = f"{ordinal(int(ranks.loc[row, reached]))} of {arrivals[reached]}" if reached else None
        rows.append(
            {
                "trial": standing.trial.number,
                "state": standing.state,
                "rung": reached,
                "examples_seen": dict(zip(standing.steps, standing.values, strict=True)).get(reached, 0),
                "loss": standing.loss if counts else curve.get(reached, np.nan),
                "reason": _reason(standing, reached, rank),
                "seconds": float(sum(report.seconds for report in standing.reports)),
                "tokens": sum(report.tokens for report in standing.reports),
                "peak_bytes": max((report.peak_bytes for report in standing.reports), default=0),
                **{f"{_LOSS}{rung}": curve.get(rung, np.nan) for rung in rungs},
                **{name: getattr(standing.trial.recipe, name) for name in names},
            }
        )
    table = pd.DataFrame(rows, columns=[*FIXED, *(f"{_LOSS}{rung}" for rung in rungs), *names])
    table["place"] = _places(table)
    return table


def rungs_of(table: pd.DataFrame) -> list[int]:
    """The rungs of an outcomes table, ascending: examples seen, or folds from 1 on."""
    return [int(column.removeprefix(_LOSS)) for column in table.columns if column.startswith(_LOSS)]


def names_of(table: pd.DataFrame) -> list[str]:
    """The searched parameters of an outcomes table."""
    return [column for column in table.columns if column not in FIXED and not column.startswith(_LOSS)]


def losses_of(table: pd.DataFrame) -> pd.DataFrame:
    """The losses of an outcomes table alone: trials, rungs. Columns: as `rungs_of` counts them."""
    rungs = rungs_of(table)
    return table[[f"{_LOSS}{rung}" for rung in rungs]].set_axis(rungs, axis="columns")


def placed(rung: int, folds: int | None) -> str:
    """Where a loss was measured, for people."""
    return f"after {rung:,} examples" if folds is None else f"on fold {rung} of {folds}"


def ceiling_of(losses: pd.DataFrame) -> float:
    """The highest loss that leaves the others apart; beyond it lie only losses far out at their rung.

    losses: trials, rungs; at least one finite. Far out: beyond Tukey's outer fence (third quartile + 3
    interquartile ranges) of all distances from the rung's median. The highest of all, unless the
    others then shared less than two thirds of a figure's height.
    """
    values = losses.to_numpy(dtype=float)
    distance = (losses - losses.median()).to_numpy(dtype=float)
    lower, upper = np.nanquantile(distance, [0.25, 0.75])
    floor, highest = float(np.nanmin(values)), float(np.nanmax(values))
    near = float(np.nanmax(values[distance <= upper + 3 * (upper - lower)]))
    return near if near - floor < (highest - floor) * 2 / 3 else highest


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    endings = {} if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{endings.get(number % 10, 'th')}"


def _finite_losses(standing: Standing) -> Mapping[int, float]:
    return {step: loss for step, loss in standing.steps.items() if np.isfinite(loss)}


def _places(table: pd.DataFrame) -> pd.Series[int]:
    # Where the length is searched, the end of a short trial counts as much as that of a long one.
    ended = table["state"] == "complete"
    progress = table["rung"].mask(ended, np.inf)
    ranked = table.assign(progress=progress)[table["loss"].notna()].sort_values(
        ["progress", "loss", "trial"], ascending=[False, True, True]
    )
    places = pd.Series(range(1, len(ranked) + 1), index=ranked.index, dtype="Int64")
    return places.reindex(table.index)


def _reason(standing: Standing, reached: int, rank: str | None) -> str:
    match standing.state:
        case "complete":
            return standing.reason or "ran to the end"
        case "running":
            return "running"
        case "pruned" | "paused":
            # Not "pruned" or "not promoted": a spent budget stops trials that no pruner judged.
            verb = "stopped" if standing.state == "pruned" else "waits"
            where = f"{reached} examples" if standing.folds is None else f"fold {reached} of {standing.folds}"
            return f"{verb} after {where}: {rank}" if rank else f"{verb} before its first loss"
        case _:
            lines = (standing.reason or "").strip().splitlines()
            return lines[0] if lines else standing.state
