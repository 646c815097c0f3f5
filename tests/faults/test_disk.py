"""The disk is full: the sweep says so and ends, nothing is corrupt, and it goes on once there is room."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.machine import small_disk
from tests.faults.sweeps import PATIENCE_SECONDS, Outline, Sweep, tally, tracked


@pytest.mark.faults
@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param("everything", "ree space", id="everything"),
        pytest.param("checkpoints", "No space left on device", id="checkpoints"),
        pytest.param("study", "database or disk is full. Free space", id="study"),
        pytest.param("journal", "No space left on device", id="journal"),
    ],
)
def test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(
    what: str,
    said: str,
    tmp_path: Path,
    undisturbed: Sequence[Outline],
    tell_fault: Callable[..., None],
) -> None:
    work = tmp_path / "work"
    place = {
        "everything": work,
        "checkpoints": work / "runs/smoke/checkpoints",
        "study": work / "study",
        "journal": work / "runs/smoke/tracking",
    }[what]
    with small_disk(place, 64) as disk:
        storage = f"sqlite:///{place}/sweep.db" if what == "study" else ""
        sweep = Sweep(work, trials=24, pace=0.005, storage=storage, printed=tmp_path / "log")
        with sweep.running() as process:
            sweep.until_told(process, 3)
            disk.fill()
            assert process.wait(PATIENCE_SECONDS) == 2, sweep.log
        assert said in sweep.log
        assert "Traceback" not in sweep.log
        with closing(sqlite3.connect(sweep.storage.removeprefix("sqlite:///"))) as study:
            assert study.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        disk.enlarge(512)
        with sweep.running() as process:
            seconds = sweep.until_told(process, 1)
            assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
        trials, runs = tally(sweep, undisturbed), tracked(sweep)
        tell_fault(injected=1, trials=trials, runs=runs, seconds=seconds)
        assert (trials.lost, trials.doubled) == (0, 0)
        assert (runs.lost, runs.doubled) == (0, 0)
