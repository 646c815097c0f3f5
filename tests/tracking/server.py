"""A real MLflow server, to be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path


class Server:
    """On a port of its own and a database in `folder`, which outlive a kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it is not running, and wait until it answers."""
        if self._process is None:
            self._process = self._started()
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()

    def kill(self) -> None:
        """With `kill -9`."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Requests are taken, and wait."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Requests that wait are answered, whoever still listens."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def _started(self) -> subprocess.Popen[bytes]:
        store = f"sqlite:///{self.folder}/mlflow.db"
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "2"]
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *options]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
