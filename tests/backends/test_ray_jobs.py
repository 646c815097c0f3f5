"""The whole command as a job of a Ray cluster, submitted as docs/clusters.md says."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.clusters import cluster
from tests.test_pipeline import outline

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SWEEP = [
    *(sys.executable, "-m", "sweep", "+experiment=smoke", "engine=synthetic", "sampler=random"),
    *("scheduler=full", "budget.trials=60", "baseline=[]"),
]
RAY = ["backend=ray", "backend.address=auto", "backend.workers=2", "backend.gpus_per_worker=0"]
NEEDED = ("aiohttp_cors", "opencensus", "prometheus_client", "smart_open", "virtualenv")


def at(folder: Path) -> list[str]:
    """All that the sweep keeps, by absolute paths: a job's working directory is nobody else's."""
    return [
        f"output={folder}/runs/smoke",
        f"storage=sqlite:///{folder}/sweep.db",
        f"tracking.uri=sqlite:///{folder}/mlflow.db",
    ]


def test_a_submitted_sweep_that_was_stopped_goes_on(tmp_path: Path) -> None:
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"Ray's job server needs ray[default]: {', '.join(lacking)} missing")
    alone, submitted, project = tmp_path / "alone", tmp_path / "submitted", tmp_path / "project"
    for folder in (alone, submitted, project):
        folder.mkdir()

    with (
        subprocess.Popen([*SWEEP, *at(alone)], cwd=alone, stdout=subprocess.DEVNULL) as undisturbed,
        cluster() as made,
        socket.create_server(("127.0.0.2", 0)) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        environment = {
            **made.environment,
            "RAY_JOB_STOP_WAIT_TIME_S": "120",
            # Its client and its server speak HTTP with each other.
            "no_proxy": "127.0.0.1,127.0.0.2",
        }
        server = ("--include-dashboard=true", "--dashboard-host=127.0.0.2", f"--dashboard-port={port}")
        made.add(*server, cpus=4, environment=environment)

        def job(verb: str, *arguments: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "job", verb),
                    *(f"--address=http://127.0.0.2:{port}", *arguments),
                ],
                cwd=project,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def submit(name: str) -> subprocess.Popen[str]:
            command = [*SWEEP, *RAY, *at(submitted)]
            return job("submit", "--working-dir=.", f"--submission-id={name}", "--", *command)

        with submit("first") as first:
            assert first.stdout is not None
            said = ""
            while "  trial " not in said and (line := first.stdout.readline()):
                said += line
            with job("stop", "first") as stop:
                answer, _ = stop.communicate(timeout=200)
            assert stop.returncode == 0, answer
            said += first.stdout.read()
            assert "go on with:" in said, said
        with submit("second") as second:
            told, _ = second.communicate(timeout=200)
        assert second.returncode == 0, told
        assert undisturbed.wait() == 0
    assert outline(submitted) == outline(alone)
