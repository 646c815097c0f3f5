"""What the driver and its workers tell people and each other, and what is left when the driver goes."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep.search.loop import Jobs, run_jobs
from sweep.types import Asking, Prompt, Report
from tests.backends.drivers import children_of, driver
from tests.backends.engines import Noted, Slow, Talking, noted
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.studies import synthetic_inputs


def test_a_killed_driver_leaves_no_worker(tmp_path: Path) -> None:
    with driver(pool, tmp_path) as process:
        workers = children_of(process, 2)
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


def test_a_killed_driver_leaves_no_stopped_worker(tmp_path: Path) -> None:
    with driver(pool, tmp_path) as process:
        workers = children_of(process, 2)
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
