from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

from sweep.analysis.axes import Array, Axis

Function = Callable[[Array], Array]
# Keeps only the better part of the trials at each rung, as a scheduler does.
RUNGS = ((256, 0.4, 0.5), (768, 0.15, 0.5), (2304, 0.0, 1.0))


def unit_axes(count: int) -> list[Axis]:
    return [Axis(name=f"x{i}", scale="linear") for i in range(1, count + 1)]


def table_of(
    function: Function, axes: Sequence[Axis], trials: int, *, noise: float = 0.0, seed: int = 0, rungs=None
) -> pd.DataFrame:
    """Trials at scattered positions. function: of positions. noise: in standard deviations of the loss."""
    rng = np.random.default_rng(seed)
    positions = qmc.LatinHypercube(len(axes), rng=seed).random(trials)
    values = {}
    for column, axis in enumerate(axes):
        node = np.minimum((positions[:, column] * len(axis.nodes)).astype(int), len(axis.nodes) - 1)
        if axis.discrete:
            positions[:, column] = axis.nodes[node]
            values[axis.name] = [axis.choices[i] for i in node]
        elif axis.scale == "log":
            values[axis.name] = axis.low * (axis.high / axis.low) ** positions[:, column]
        else:
            values[axis.name] = axis.low + (axis.high - axis.low) * positions[:, column]
    truth = function(positions)
    alive, rows = np.arange(trials), []
    for examples_seen, bias, kept in rungs or ((1000, 0.0, 1.0),):
        loss = truth[alive] + bias * (1.0 + positions[alive, 0])
        loss = loss + noise * truth.std() * rng.standard_normal(len(alive))
        picked = {name: [column[i] for i in alive] for name, column in values.items()}
        rows.append(
            pd.DataFrame(
                {
                    "trial": alive,
                    "state": "complete",
                    "examples_seen": examples_seen,
                    "loss": loss,
                    **picked,
                }
            )
        )
        alive = alive[np.argsort(loss)[: int(len(alive) * kept)]]
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="session")
def axes_for() -> Callable[[int], list[Axis]]:
    return unit_axes


@pytest.fixture(scope="session")
def trials_of() -> Callable[..., pd.DataFrame]:
    return table_of


@pytest.fixture(scope="session")
def rungs() -> tuple[tuple[int, float, float], ...]:
    return RUNGS
