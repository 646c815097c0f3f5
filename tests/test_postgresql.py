"""The command with its study in PostgreSQL: a second driver, an outage, an interruption in it, and on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sweep.engines.synthetic import Synthetic
from sweep.paths import packaged_root
from sweep.search.storage import open_stored
from sweep.search.stored import read_study
from tests.backends.engines import NOISE
from tests.postgres import running
from tests.studies import synthetic_inputs

pytestmark = pytest.mark.slow

SWEEP = [
    *(sys.executable, "-m", "sweep", "+experiment=smoke", "engine=synthetic", "~engine.noise"),
    *("engine._target_=tests.backends.engines.Lasting", "trusted_targets=[tests.backends.engines]"),
    *("sampler=random", "scheduler=full", "budget.trials=12", "data.max_rows=250", "backend.workers=2"),
]


def started(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """It prints to `log`."""
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(packaged_root()), *sys.path]),
        "SWEEP_CACHE": str(folder.parent / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait_for(text: str, process: subprocess.Popen[bytes], folder: Path, *, times: int = 1) -> None:
    while (folder / "log").read_text().count(text) < times:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)


def test_a_sweep_in_postgresql_outlives_its_database_and_an_interruption(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with running() as server:
        url = server.create("sweeps")
        command = [*SWEEP, f"storage={url}"]
        first = started(command, here)
        wait_for("  trial ", first, here, times=4)
        assert started(command, there).wait(300) == 2
        refused = (there / "log").read_text()
        assert f"The study 'smoke' is in use by process {first.pid} on " in refused
        assert "Traceback" not in refused
        server.stop(immediate=True)
        # Trial 1, which waits for it, ends while the database is away.
        (here / "runs/smoke/go").touch()
        wait_for("The study's database can't be reached", first, here)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130, (here / "log").read_text()
        told = (here / "log").read_text()
        assert "go on with:" in told
        assert "Traceback" not in told
        server.start()
        again = started(command, here)
        wait_for("base ", again, here)
        server.restart()
        assert again.wait(300) == 0, (here / "log").read_text()
        stored = open_stored(url)
        study = read_study(stored, "smoke")
        stored._backend.engine.dispose()  # type: ignore[attr-defined]
        expected = Synthetic(inputs=synthetic_inputs(tmp_path), noise=NOISE).expected
        assert [standing.trial.number for standing in study.standings] == list(range(12))
        for standing in study.standings:
            recipe, seed = standing.trial.recipe, standing.trial.seed
            assert standing.state == "complete"
            assert standing.values == {rung: expected(recipe, rung, seed) for rung in standing.values}
        assert study.handed is not None
