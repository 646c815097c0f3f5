"""What a search is expected to take, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sweep.search.scheduler import Full
from sweep.stages.untrained import expectation
from sweep.types import Report, RowLoss
from tests.studies import budget, open_study

# A second for each of the rows that were scored.
BASE = Report(
    job="base",
    trial="base",
    attempt=0,
    examples_seen=0,
    state="reached",
    validation_loss=2.0,
    rows=tuple(RowLoss(str(row), 2.0, 1) for row in range(32)),
    seconds=32.0,
)


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        # 12 trials of 288 examples at 4.5 s, and half of 12 times 32 rows: 15,744 s; of one trial 1,328.
        ((1,), "about 4.4 h on this machine"),
        ((4,), "about 4.4 h on this machine"),
        ((1, 1), "about 2.4 h with 2 workers"),
        ((1,) * 16, "about 37 min with 16 workers"),
        ((1,) * 10_000, "about 22 min with 10000 workers"),
    ],
)
def test_workers_share_the_trials_and_each_trial_takes_its_time(devices: Sequence[int], text: str) -> None:
    study = open_study(scheduler=Full(), devices=devices)
    assert expectation(study, BASE).endswith(text)


@pytest.mark.parametrize(
    ("limits", "end"),
    [
        ({"minutes": 60.0}, "; budget.minutes stops it after 48 min"),
        ({"minutes": 60.0, "gpu_hours": 1.0}, "; budget.gpu_hours stops it after 24 min"),
        ({"cost": 1.0, "price_per_device_hour": 2.5}, "; budget.cost stops it after 10 min"),
        ({"trials": 12}, "with 2 workers"),
    ],
)
def test_the_budget_that_is_reached_first_is_named(limits: dict[str, float], end: str) -> None:
    study = open_study(scheduler=Full(), devices=(1, 1), clock=lambda: 0.0, bounds=budget(**limits).bounds)
    assert expectation(study, BASE).endswith(end)
