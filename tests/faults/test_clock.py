"""The clock is put an hour on, and two back, while a sweep runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.machine import Clock
from tests.faults.sweeps import PATIENCE_SECONDS, Outline, Sweep, stored_trials, tally, tracked


@pytest.mark.faults
def test_a_clock_that_is_an_hour_off_changes_nothing(
    tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    clock = Clock(tmp_path)
    sweep = Sweep(
        tmp_path, trials=24, pace=0.005, environment=clock.environment, given=["backend.silent_seconds=60"]
    )
    with sweep.running() as process:
        for hours in (1, -1):
            sweep.until_told(process, 6)
            clock.set(hours=hours)
        assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
    begun = [trial.datetime_start for trial in stored_trials(sweep.storage)]
    hours = [(moment - begun[0]).total_seconds() / 3600 for moment in begun]
    assert max(hours) > 0.9, "an hour on"
    assert min(hours) < -0.9, "an hour back"
    assert " gave no sign of life " not in sweep.log
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=2, trials=trials, runs=runs)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)
