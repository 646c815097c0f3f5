"""The command with a Ray cluster that it starts on this machine: interrupted, killed, gone on with."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.backends.test_command import started, wait_for_trials
from tests.test_pipeline import outline

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Closed-form losses, which come so fast that the driver, not the workers, makes it last.
SWEEP = [
    *(sys.executable, "-m", "sweep", "+experiment=smoke", "engine=synthetic"),
    *("sampler=random", "scheduler=full", "budget.trials=120"),
]
RAY = [*SWEEP, "backend=ray", "backend.workers=2", "backend.gpus_per_worker=0"]


def processes_of(driver: int) -> list[psutil.Process]:
    """All of its cluster, and the workers."""
    return psutil.Process(driver).children(recursive=True)


def workers_of(driver: int) -> list[psutil.Process]:
    return [process for process in processes_of(driver) if "sweep.backends.worker" in process.cmdline()]


def assert_closed(processes: Sequence[psutil.Process]) -> None:
    """To other machines; and nobody else can read the token."""
    heard = {
        ip_address(one.laddr.ip)
        for process in processes
        for one in process.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert heard
    assert [ip for ip in heard if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback] == []
    (token,) = {process.environ().get("RAY_AUTH_TOKEN_PATH") for process in processes} - {None}
    assert stat.S_IMODE(Path(token).stat().st_mode) == 0o600


def test_killed_and_interrupted_it_finds_what_one_process_finds(tmp_path: Path) -> None:
    alone, on_ray, cache = tmp_path / "alone", tmp_path / "ray", tmp_path / "cache"
    alone.mkdir()
    on_ray.mkdir()
    assert started(SWEEP, alone, cache).wait(900) == 0, (alone / "log").read_text()

    driver = started(RAY, on_ray, cache)
    wait_for_trials(driver, on_ray, 3)
    assert_closed(processes_of(driver.pid))
    (first, _) = workers_of(driver.pid)
    first.kill()
    while "was killed (SIGKILL)" not in (on_ray / "log").read_text():
        assert driver.poll() is None, (on_ray / "log").read_text()
        time.sleep(0.05)
    wait_for_trials(driver, on_ray, 6)
    everything = processes_of(driver.pid)
    # As a terminal does: to all that Ray started in the driver's group, too.
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(300) == 130, (on_ray / "log").read_text()
    assert psutil.wait_procs(everything, timeout=300)[1] == []
    told = (on_ray / "log").read_text()
    assert "go on with:" in told
    assert "Traceback" not in told

    driver = started(RAY, on_ray, cache)
    wait_for_trials(driver, on_ray, 3)
    everything = processes_of(driver.pid)
    assert len([process for process in everything if "sweep.backends.worker" in process.cmdline()]) == 2
    driver.kill()
    driver.wait()
    assert psutil.wait_procs(everything, timeout=300)[1] == []

    assert started(RAY, on_ray, cache).wait(900) == 0, (on_ray / "log").read_text()
    assert outline(on_ray) == outline(alone)
