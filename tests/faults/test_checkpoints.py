"""Files of checkpoints are damaged between two starts: what went before them is gone on from, and said so."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.sweeps import PATIENCE_SECONDS, Outline, Sweep, tally, tracked


def truncate(state: Path) -> None:
    state.write_bytes(state.read_bytes()[:-1])


def remove(state: Path) -> None:
    state.unlink()


def flip(state: Path) -> None:
    first, *others = state.read_bytes()
    state.write_bytes(bytes([first ^ 1, *others]))


@pytest.mark.slow
def test_damaged_checkpoints_cost_a_stretch_and_no_trial(
    tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    """Of three trials under way, each in another way."""
    sweep = Sweep(tmp_path, trials=12, workers=3, pace=0.02)
    with sweep.running() as process:
        sweep.until(process, lambda: len(_between_rungs(sweep)) == 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130, sweep.log
    under_way = [one for one in sweep.study().standings if not one.ended]
    states = [_newest(tmp_path / "runs/smoke/checkpoints" / one.trial.id) for one in under_way]
    assert len(states) == 3
    for damage, state in zip((truncate, remove, flip), states, strict=True):
        damage(state / "state.json")
    with sweep.running() as process:
        seconds = sweep.until_told(process, 1)
        assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
    for one, state in zip(under_way, states, strict=True):
        broken = f"{state.name}/state.json is missing or is not what was written"
        assert re.search(f"Trial {one.trial.id} goes on from an earlier state.*: .*{broken}", sweep.log)
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=3, trials=trials, runs=runs, seconds=seconds)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)


def _between_rungs(sweep: Sweep) -> set[int]:
    """Trials with a rung behind them and one before them."""
    ended = {trial for trial, examples in sweep.told if examples == 104}
    return {trial for trial, _ in sweep.told} - ended


def _newest(folder: Path) -> Path:
    return max(folder.glob("[0-9]*"), key=lambda path: int(path.name))
