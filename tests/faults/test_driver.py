"""The driver is killed, whatever it is at: the same command goes on, and ends as if nothing had happened."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.sweeps import Outline, Sweep, tally, tracked


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(2, marks=pytest.mark.slow, id="twice"),
        pytest.param(20, marks=pytest.mark.faults, id="20 times"),
    ],
)
def test_a_driver_killed_at_random_points_loses_and_doubles_nothing(
    kills: int, tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    sweep = Sweep(tmp_path, trials=2 * kills, pace=0.01)
    draw, recovered = random.Random(kills), []
    for number in range(kills):
        with sweep.running() as process:
            if number % 4 == 3:
                # While modules load, data are read, the model is scored.
                sweep.lives(process, draw.uniform(0, 6))
            else:
                recovered.append(sweep.until_told(process, 1))
                sweep.lives(process, draw.uniform(0, 2))
            process.kill()
    sweep.run()
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=kills, trials=trials, runs=runs, seconds=statistics.median(recovered))
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)
