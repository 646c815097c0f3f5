"""What the driver and its workers tell people and each other, and what is left when the driver goes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep.paths import packaged_root
from sweep.search.loop import Jobs, run_jobs
from sweep.types import Asking, Prompt, Report
from tests.backends.engines import Noted, Slow, Talking, noted
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.studies import synthetic_inputs

DRIVER = """
import sys
from functools import partial
from pathlib import Path

from sweep.search.loop import Jobs
from tests.backends.engines import Slow
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.studies import synthetic_inputs

folder = Path(sys.argv[1])
backend = pool(partial(Slow, inputs=synthetic_inputs(folder)), folder)
waited_for = {"a", "b"}
for event in backend.run(Jobs([job(0, 10**6, trial=trial, horizon=10**6) for trial in waited_for])):
    if event.trial in waited_for:
        waited_for.remove(event.trial)
        if not waited_for:
            print("both run", flush=True)
"""


@contextmanager
def driver(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A driver in a process of its own, and its two workers, both in the middle of a job."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        cwd=packaged_root(),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "both run\n"
        mine = psutil.Process(process.pid).children()
        assert len(mine) == 2
        try:
            yield process, mine
        finally:
            process.kill()


def test_a_killed_driver_leaves_no_worker(tmp_path: Path) -> None:
    with driver(tmp_path) as (process, workers):
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


def test_a_killed_driver_leaves_no_stopped_worker(tmp_path: Path) -> None:
    with driver(tmp_path) as (process, workers):
        workers[0].suspend()
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


def test_workers_leave_it_to_the_driver_to_stop(tmp_path: Path) -> None:
    """A terminal signals the group in its foreground, a machine on its way down every process."""
    told = False
    with closing(pool(partial(Slow, inputs=synthetic_inputs(tmp_path)), tmp_path, workers=1)) as backend:
        for event in backend.run(Jobs([job(0, 240, trial="a"), job(0, 240, trial="b")])):
            if not told:
                told = True
                (worker,) = psutil.Process().children()
                assert os.getpgid(worker.pid) != os.getpgid(0)
                worker.send_signal(signal.SIGINT)
                worker.terminate()
            assert not isinstance(event, Report) or event.state == "reached"
    assert len(noted(tmp_path, "engines")) == 1


def test_a_worker_writes_to_its_log_and_warns_through_the_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(pool(partial(Talking, inputs=synthetic_inputs(tmp_path)), tmp_path, workers=1)) as backend:
        run_jobs([job(trial="a")], backend)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "sweep.engines",
        logging.WARNING,
        "worker 0: Trial a is odd.",
    )
    log = (tmp_path / "workers" / "0.log").read_text()
    assert "a line for the log" in log
    assert "Trial a is odd." in log
    assert "a@48 begins, from 0 to 48 examples" in log
    assert "a@48 ends after 48 examples: reached" in log
    captured = capfd.readouterr()
    assert "a line for the log" not in captured.out + captured.err


def test_large_questions_and_answers_go_through(tmp_path: Path) -> None:
    """Of many times what a socket holds, in both directions at once."""
    prompts = tuple(Prompt(f"row-{number}", (("user", "how long? " * 100),)) for number in range(3000))
    asking = [replace(job(0, 8, trial=trial), asked=Asking(prompts, 4)) for trial in "abcd"]
    with closing(pool(partial(Noted, inputs=synthetic_inputs(tmp_path)), tmp_path)) as backend:
        reports = run_jobs(asking, backend)
    assert {len(report.replies) for report in reports.values()} == {3000}


def test_a_worker_trains_on_while_nobody_listens(tmp_path: Path) -> None:
    """To its end, a thousand messages and two seconds away; afterwards it is not taken for silent."""
    log, told = tmp_path / "workers" / "0.log", []
    engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
    with closing(pool(engine, tmp_path, workers=1, silent_seconds=1)) as backend:
        for event in backend.run(Jobs([job(0, 8000, trial="a", horizon=8000)])):
            while not told and "a@8000 ends" not in log.read_text():
                time.sleep(0.01)
            told.append(event)
    assert isinstance(told[-1], Report)
    assert [event.examples_seen for event in told[:-1]] == [*range(8, 8001, 8)]
    assert len(noted(tmp_path, "engines")) == 1
