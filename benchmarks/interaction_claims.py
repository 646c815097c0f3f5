"""How often the analysis claims that two parameters act on each other, where they do and where they don't.

Losses of known functions at scattered positions, as a search without pruning leaves them, with noise
of a twentieth of their spread. Writes `results/interaction_claims.json`: claims of the strongest pair
by function, number of parameters and number of trials. Some minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import qmc

from sweep.analysis.axes import Axis
from sweep.analysis.interactions import SMALL, interactions
from sweep.analysis.surrogate import fit

Array = NDArray[np.float64]
RESULT = Path(__file__).parent / "results" / "interaction_claims.json"
REPEATS = 20
PARAMETERS = (2, 4)
TRIALS = (8, 12, 16, 24, 48)
NOISE = 0.05
WEIGHTS = np.array([1.0, 0.5, 0.2, 0.1])


def bowls(positions: Array) -> Array:
    """A parabola per parameter: nothing interacts."""
    return np.asarray((positions - 0.4) ** 2 @ WEIGHTS[: positions.shape[1]] * 4)


def waves(positions: Array) -> Array:
    """A cosine per parameter: nothing interacts."""
    return np.asarray(np.cos(2 * np.pi * positions) @ WEIGHTS[: positions.shape[1]])


def saddle(positions: Array) -> Array:
    """The cosines and a product of the first two: that pair interacts."""
    return waves(positions) + 6 * (positions[:, 0] - 0.5) * (positions[:, 1] - 0.5)


FUNCTIONS: tuple[Callable[[Array], Array], ...] = (bowls, waves, saddle)


def claims(function: Callable[[Array], Array], parameters: int, trials: int) -> int:
    """In how many of the repeats the strongest pair is claimed, as `describe` does."""
    axes = [Axis(name=f"x{i}", scale="linear") for i in range(parameters)]
    found = 0
    for seed in range(REPEATS):
        positions = qmc.LatinHypercube(parameters, rng=seed).random(trials)
        loss = function(positions)
        loss = loss + NOISE * loss.std() * np.random.default_rng(seed).standard_normal(trials)
        columns = {axis.name: positions[:, i] for i, axis in enumerate(axes)}
        table = pd.DataFrame(
            {"trial": range(trials), "state": "complete", "examples_seen": 100, "loss": loss, **columns}
        )
        surrogate = fit(table, axes, seed=seed)
        pairs = interactions(table, axes, seed=seed, surrogate=surrogate)
        found += bool(surrogate and surrogate.trusted and pairs["low"].iloc[0] >= SMALL)
    return found


def main() -> None:
    """Count, print, write."""
    rows = []
    for function in FUNCTIONS:
        for parameters in PARAMETERS:
            for trials in TRIALS:
                count = claims(function, parameters, trials)
                rows.append(
                    {
                        "function": function.__name__,
                        "interacts": function is saddle,
                        "parameters": parameters,
                        "trials": trials,
                        "claimed": count,
                        "searches": REPEATS,
                    }
                )
                print(
                    f"{function.__name__:<7} {parameters} parameters {trials:>3} trials: {count} of {REPEATS}"
                )
    RESULT.write_text(json.dumps({"noise": NOISE, "least_share": SMALL, "claims": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
