"""Which modules a command and its workers import, and what they hear and say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import sweep
from sweep.search.loop import run_jobs
from tests.backends.engines import Noted
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.security import hostile
from tests.studies import synthetic_inputs

SOURCES = sorted(Path(sweep.__file__).parent.rglob("*.py"))


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a working directory of files that are named like what is imported; there if one of them ran."""
    for name in ("sweep", "optuna", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(hostile.module(tmp_path / "ran"))
    for name in ("yaml", "logging", "pickle", "rich", "numpy"):
        (tmp_path / f"{name}.py").write_text(hostile.module(tmp_path / "ran"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


def test_a_worker_imports_nothing_of_a_folder_that_its_driver_does_not(ran: Path, tmp_path: Path) -> None:
    assert not {"", str(tmp_path)} & set(sys.path)
    inputs = synthetic_inputs(tmp_path)
    with closing(pool(partial(Noted, inputs=inputs), tmp_path, workers=1)) as backend:
        reports = run_jobs([job(0, 24)], backend)
    assert [report.state for report in reports.values()] == ["reached"]
    assert not ran.exists()


def test_a_command_in_safe_mode_imports_nothing_of_the_folder_that_it_runs_in(ran: Path) -> None:
    """`python -P`, which docs/security.md names for folders of others."""
    search = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sweep", "+experiment=smoke", "engine=synthetic", "budget.trials=0"],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "budget.trials: must be at least 1" in done.stderr) == (2, True), done.stderr
    assert not ran.exists()


def calls(source: Path) -> set[str]:
    """The dotted names that the source calls."""
    tree = ast.parse(source.read_text("utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize(
    ("call", "homes"),
    [
        # Between a driver and the worker that it started, through a socket that nobody else can open.
        ("pickle.loads", {"backends/seat.py", "backends/worker.py"}),
        ("pickle.load", set()),
        ("torch.load", set()),
        ("joblib.load", set()),
        ("eval", set()),
        ("exec", set()),
        ("os.system", set()),
        ("yaml.load", set()),
        ("yaml.unsafe_load", set()),
        # Targets, and a scorer's function, both under what is allowed or trusted.
        ("importlib.import_module", {"targets.py", "tracking/scorer.py"}),
        ("subprocess.run", {"assembly.py"}),
        ("subprocess.Popen", {"backends/child.py", "backends/group.py"}),
    ],
)
def test_what_can_run_code_is_called_where_it_is_known_to_be(call: str, homes: set[str]) -> None:
    found = {path.relative_to(SOURCES[0].parent).as_posix() for path in SOURCES if call in calls(path)}
    assert found == homes


def test_no_command_goes_through_a_shell() -> None:
    assert not [path for path in SOURCES if "shell=True" in path.read_text("utf-8")]


def test_workers_talk_through_a_socket_that_has_no_address() -> None:
    """A pair, inherited: nothing listens, so nobody can send a pickle. Only where a group of processes
    shares a model does its first one listen, for torch, on the loopback address.
    """
    listening = {"socket.socket", "socket.create_server", "Listener", "HTTPServer", "TCPServer"}
    assert [path.name for path in SOURCES if calls(path) & listening] == ["group.py"]
