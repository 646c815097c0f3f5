"""Rungs that grow geometrically, how many trials get how far under halving, and what that takes."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import cast

import numpy as np


def geometric_ladder(horizon: int, unit: int, *, eta: int, rungs: int) -> tuple[int, ...]:
    """`rungs` rungs ending at `horizon`, each about `eta` times the one before, in multiples of `unit`.

    Fewer where the horizon is too short for them: rungs below one unit are left out.
    """
    wanted = [horizon / eta**k for k in range(1, rungs)]
    lower = {math.floor(examples / unit) * unit for examples in wanted if examples >= unit}
    return (*sorted(lower - {horizon}), horizon)


def check_ladder(eta: int, rungs: int) -> None:
    """Nothing, or ValueError: no such rungs can be."""
    if eta < 2 or rungs < 1:
        raise ValueError(f"needs eta >= 2 and rungs >= 1, got eta={eta}, rungs={rungs}")


def examples_of(ladder: Sequence[int], reaching: Sequence[int]) -> int:
    """Examples trained when `reaching[i]` trials get from the rung below to rung i."""
    below = (0, *ladder)
    return sum(trials * (rung - start) for trials, rung, start in zip(reaching, ladder, below, strict=False))


def reaching(trials: int, *, rungs: int, eta: int) -> list[int]:
    """About how many of so many trials reach each rung under `Asha` with one slot, the defaults apart.

    More than 1 / eta of those of the rung below: who was among the best when it arrived stays promoted.
    The range of a trial's loss falls to half of what it was by the last one, which comes between random
    draws and TPE in benchmarks/search_replay.py.
    """
    simulated, repeats = min(trials, 128), 16
    draws = np.random.default_rng(0).random((repeats, simulated))
    total = np.zeros(rungs)
    for losses in draws * np.linspace(1.0, 0.5, simulated):
        total += _counts(losses.tolist(), rungs=rungs, eta=eta)
    return [round(count * trials / simulated / repeats) if trials else 0 for count in total]


def _counts(losses: Sequence[float], *, rungs: int, eta: int) -> list[int]:
    """How many reach each rung when they start one after another and keep their loss."""
    waiting: list[list[float]] = [[] for _ in range(rungs)]
    reached: list[list[float]] = [[] for _ in range(rungs)]

    def promotable(at: int) -> bool:
        best = reached[at][: len(reached[at]) // eta]
        return bool(waiting[at] and best) and waiting[at][0] <= best[-1]

    for drawn in losses:
        loss, rung = drawn, cast("int | None", 0)
        while rung is not None:
            insort(waiting[rung], loss)
            insort(reached[rung], loss)
            rung = next((r for r in reversed(range(rungs - 1)) if promotable(r)), None)
            if rung is not None:
                loss, rung = waiting[rung].pop(0), rung + 1
    return [len(those) for those in reached]
