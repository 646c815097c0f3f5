"""The study's PostgreSQL goes down while a sweep runs: it is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.sweeps import PATIENCE_SECONDS, Outline, Sweep, tally, tracked
from tests.postgres import Postgres

AWAY_SECONDS = 30


@pytest.mark.faults
@pytest.mark.parametrize(("what", "away"), [("crashed", 0), ("away", AWAY_SECONDS)])
def test_a_database_that_goes_down_is_waited_for_and_misses_nothing(
    what: str,
    away: float,
    postgres: Postgres,
    tmp_path: Path,
    undisturbed: Sequence[Outline],
    tell_fault: Callable[..., None],
) -> None:
    sweep = Sweep(tmp_path, trials=24, pace=0.02, storage=postgres.create(what))
    with sweep.running() as process:
        sweep.until_told(process, 3)
        postgres.stop(immediate=True)
        sweep.lives(process, away)
        before = len(sweep.told)
        postgres.start()
        seconds = sweep.until(process, lambda: len(sweep.told) > before)
        assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
    if away:
        # One that is there again before anything is asked of it is not told of.
        assert "The study's database answers again" in sweep.log
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=1, trials=trials, runs=runs, seconds=seconds)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)
