"""The SLURM script, on a SLURM of two nodes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.clusters import LOOPBACK
from tests.clusters.slurm import Slurm, lacking, running
from tests.faults.sweeps import PATIENCE_SECONDS, Sweep, Tally, outline, tally

SCRIPT = Path(__file__).parents[2] / "docs/clusters/slurm.sh"
TRIALS = 60

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]


def until(holds: Callable[[], bool], sweep: Sweep) -> None:
    by = time.monotonic() + PATIENCE_SECONDS / 4
    while not holds():
        assert time.monotonic() < by, sweep.log
        time.sleep(0.1)


def submitted(slurm: Slurm, sweep: Sweep) -> str:
    """The job's number."""
    (sweep.folder / ".venv").symlink_to(sys.prefix)
    arguments = sweep.command[sweep.command.index("sweep") + 1 :]
    job = slurm.run(
        *("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=2", "--gpus-per-node=1", SCRIPT),
        *arguments,
        cwd=sweep.folder,
        PYTHONPATH=os.pathsep.join(sys.path),
        PYTHONUNBUFFERED="1",
        SWEEP_CACHE=str(sweep.folder / "cache"),
        **LOOPBACK,
    )
    sweep.printed = sweep.folder / f"sweep-{job}.log"
    return job


def test_a_job_that_is_out_of_time_goes_on_and_a_node_that_fails_costs_nothing(tmp_path: Path) -> None:
    alone = Sweep(tmp_path / "alone", trials=TRIALS)
    alone.run()
    sweep = Sweep(tmp_path / "sweep", trials=TRIALS, pace=0.002, given=["backend.gpus_per_worker=1"])
    with running(tmp_path / "slurm") as slurm:
        job = submitted(slurm, sweep)
        until(lambda: len(sweep.told) >= 5, sweep)
        # As two minutes before its time is over.
        slurm.run("scancel", "--batch", "--signal=TERM", job)
        until(lambda: slurm.restarts(job) == 1 and slurm.state(job) == "RUNNING", sweep)
        assert "go on with:" in sweep.log
        before = len(sweep.told)
        until(lambda: len(sweep.told) >= before + 5, sweep)
        assert slurm.state(job) == "RUNNING", sweep.log
        slurm.fail("n2")
        until(lambda: slurm.state(job) not in ("RUNNING", "COMPLETING"), sweep)
        assert slurm.state(job) == "COMPLETED", sweep.log
    assert tally(sweep, outline(alone.storage)) == Tally(TRIALS, 0, 0)
    assert not list(sweep.folder.glob(".ray-token*"))
