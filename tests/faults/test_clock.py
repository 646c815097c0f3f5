"""The clock is put an hour on, and two back, while a sweep runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from tests.faults.machine import Clock
from tests.faults.sweeps import NAME, Outline, Sweep, tally, tracked


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
        assert process.wait(600) == 0, sweep.log
    hours = [(moment - _began(sweep)[0]).total_seconds() / 3600 for moment in _began(sweep)]
    assert max(hours) > 0.9, "an hour on"
    assert min(hours) < -0.9, "an hour back"
    assert " gave no sign of life " not in sweep.log
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=2, trials=trials, runs=runs)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)


def _began(sweep: Sweep) -> list:
    """When each trial did, by the driver's clock."""
    storage = RDBStorage(sweep.storage)
    try:
        trials = storage.get_all_trials(storage.get_study_id_from_name(NAME))
        return [trial.datetime_start for trial in trials]
    finally:
        storage.remove_session()
        storage.engine.dispose()
