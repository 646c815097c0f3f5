"""The command with two workers, and the tiny model in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep.backends.inline import Inline
from sweep.engines.packed import Packed
from sweep.search.loop import run_jobs
from sweep.types import Backend, Engine
from tests.backends.test_pool import pool
from tests.contracts.engine import RECIPE, job
from tests.engines.conftest import tiny_inputs
from tests.test_pipeline import expected_runs, outline, runs

pytestmark = pytest.mark.smoke

SWEEP = [
    *(sys.executable, "-m", "sweep", "+experiment=smoke", "sampler=random", "scheduler=full"),
    *("budget.trials=24", "engine.slots=2"),
]
POOL = [*SWEEP, "backend.workers=2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def started(command: list[str], folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    """The command as a terminal starts it: with a process group of its own. It prints to `log`."""
    environment = {**os.environ, "SWEEP_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0
        )


def wait_for_trials(process: subprocess.Popen[bytes], folder: Path, lines: int) -> list[psutil.Process]:
    """Until so many trial lines were printed; the workers."""
    while (folder / "log").read_text().count("  trial ") < lines:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    return psutil.Process(process.pid).children()


def test_two_workers_find_what_one_process_finds_though_one_is_killed_and_all_are_interrupted(
    tmp_path: Path, cache: Path
) -> None:
    alone, pooled = tmp_path / "alone", tmp_path / "pooled"
    alone.mkdir()
    pooled.mkdir()
    assert started(SWEEP, alone, cache).wait(600) == 0, (alone / "log").read_text()
    process = started(POOL, pooled, cache)
    workers = wait_for_trials(process, pooled, 4)
    assert len(workers) == 2
    workers[0].kill()
    workers = wait_for_trials(process, pooled, 10)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130, (pooled / "log").read_text()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    told = (pooled / "log").read_text()
    assert "worker 0 was killed (SIGKILL)" in told
    assert "go on with:" in told
    assert "Traceback" not in told
    assert started(POOL, pooled, cache).wait(600) == 0, (pooled / "log").read_text()
    found = zip(outline(pooled), outline(alone), strict=True)
    for (number, state, params, values), (n, s, p, v) in found:
        assert (number, state, params, values.keys()) == (n, s, p, v.keys())
        assert [*values.values()] == pytest.approx([*v.values()], rel=1e-4)
    parents, nested = runs(pooled)
    names = Counter(run.data.tags["sweep.trial"] for run in nested)
    assert (len(parents), names) == (1, Counter(expected_runs(outline(pooled))))
    assert {run.info.status for run in nested} == {"FINISHED"}


def test_a_second_signal_leaves_at_once_and_leaves_no_worker(tmp_path: Path, cache: Path) -> None:
    process = started(POOL, tmp_path, cache)
    workers = wait_for_trials(process, tmp_path, 1)
    for worker in workers:
        # Neither can end its step.
        worker.suspend()
    process.send_signal(signal.SIGTERM)
    while "Again to leave at once" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_the_tiny_model_has_the_same_losses_in_workers(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(cache))
    assert_the_same_losses(partial(pool, folder=tmp_path), tmp_path)


def assert_the_same_losses(make_backend: Callable[[Callable[[], Engine]], Backend], folder: Path) -> None:
    """Of the tiny model, in the workers of that backend and in this process."""
    engine = partial(Packed, inputs=tiny_inputs(folder), slots=2, tokens=256)
    jobs = [
        job(0, 48, trial=str(number), recipe=replace(RECIPE, lora_rank=rank, batch_size=batch))
        for number, (rank, batch) in enumerate([(4, 8), (8, 4), (2, 16), (16, 8), (4, 4)])
    ]
    with closing(make_backend(engine)) as backend:
        pooled = run_jobs(jobs, backend)
    with closing(Inline(make_engine=engine)) as backend_here:
        here = run_jobs(jobs, backend_here)
    for one in jobs:
        assert (pooled[one.id].state, here[one.id].state) == ("reached", "reached")
        assert pooled[one.id].validation_loss == pytest.approx(here[one.id].validation_loss, rel=1e-5)
        assert len(pooled[one.id].rows) == 16
