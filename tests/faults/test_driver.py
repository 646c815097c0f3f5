"""The driver is killed, whatever it is at: the same command goes on, and ends as if nothing had happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.sweeps import Outline, Sweep, outline, runs_of, tally, tracked


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
    tell_fault(injected=kills, trials=trials, runs=runs, seconds=max(recovered[1:]))
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)


@pytest.mark.faults
def test_a_driver_killed_while_it_confirms_hands_over_the_same(
    tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    straight, killed = (Sweep(tmp_path / name, trials=8, pace=0.01) for name in ("straight", "killed"))
    straight.run()
    draw, recovered = random.Random(3), []
    for _ in range(3):
        with killed.running() as process:
            confirming = killed.log.count("\nconfirm ")
            seconds = killed.until(process, lambda: killed.log.count("\nconfirm ") > confirming)  # noqa: B023
            recovered.append(seconds)
            killed.lives(process, draw.uniform(0, 1))
            process.kill()
    killed.run()
    expected, found = (Counter(ran(sweep)) for sweep in (straight, killed))
    trials = tally(killed, undisturbed)
    runs = (expected.total(), (expected - found).total(), (found - expected).total())
    tell_fault(injected=3, trials=trials, runs=runs, seconds=max(recovered[1:]))
    assert outline(killed.storage) == outline(straight.storage)
    assert found == expected
    assert (trials.lost, trials.doubled) == (0, 0)
    assert best(killed) == best(straight)


def ran(sweep: Sweep) -> list[tuple[str, str, float | None]]:
    """Of each run in MLflow, fresh seeds of finalists too: its trial, its end, its last loss."""
    return [
        (run.data.tags["sweep.trial"], run.info.status, run.data.metrics.get("final_validation_loss"))
        for run in runs_of(sweep)
        if "sweep.trial" in run.data.tags
    ]


def best(sweep: Sweep) -> dict[str, Any]:
    """What production training is given, without where it came from."""
    found = yaml.safe_load((sweep.folder / "sweeps/best/smoke.yaml").read_text())
    return {"recipe": found["recipe"], "best": found["best"] | {"mlflow_run": None, "overrides": None}}
