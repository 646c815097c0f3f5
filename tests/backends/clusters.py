"""Real Ray clusters on this machine, on loopback addresses alone, each node with processes of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

# Nothing may leave the machine: Ray reports even that it reports no usage, and asks which cloud it is in.
LOOPBACK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
    "RAY_AUTH_MODE": "token",
    "http_proxy": "http://127.0.0.1:9",
    # A node whose agents are slow to start ends itself, on a machine with much else to do.
    "RAY_agent_register_timeout_ms": "300000",
}


class Cluster:
    """A head node and others that join it; `environment` lets a driver in.

    host: the last number of the head's address; 1 only where Ray was told not to replace that.
    """

    def __init__(self, folder: Path, *, host: int = 2) -> None:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text("0123456789abcdef" * 4)
        self._folder = folder
        self._host = host
        self._nodes: list[subprocess.Popen[bytes]] = []
        with socket.create_server((f"127.0.0.{host}", 0)) as free:
            self.address = f"127.0.0.{host}:{free.getsockname()[1]}"
        self.environment: Mapping[str, str] = {
            **LOOPBACK,
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": self.address,
        }

    def add(
        self, *options: str, cpus: int, gpus: int = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Another node, the head at first; it is there. environment: what its own differs in."""
        ip = f"127.0.0.{self._host + len(self._nodes)}"
        port = self.address.partition(":")[2]
        role = ["--address", self.address]
        if not self._nodes:
            role = ["--head", "--port", port, "--include-dashboard=false", "--temp-dir", str(self._folder)]
            role += options
        told = self._folder / f"node-{len(self._nodes)}.log"
        with told.open("wb") as log:
            node = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role),
                    *("--node-ip-address", ip, "--num-cpus", str(cpus), "--num-gpus", str(gpus)),
                    *("--object-store-memory", str(80 * 2**20), "--disable-usage-stats"),
                    # Any port: other clusters on this machine have the same range else.
                    *("--min-worker-port", "0", "--max-worker-port", "0"),
                ],
                env={**os.environ, **self.environment, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(node)
        while "Ray runtime started" not in told.read_text():
            assert node.poll() is None, told.read_text()
            time.sleep(0.05)
        return node

    def grow(self, *, most: int) -> None:
        """The head, without a core, and an autoscaler that starts nodes of one core, so many at most."""
        provider = {"type": "fake_multinode", "gcs_address": self.address, "use_node_id_as_ip": True}
        resources = {"CPU": 1, "object_store_memory": 80 * 2**20}
        nodes = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        told = self._folder / "autoscaler.json"
        told.write_text(
            json.dumps(
                {
                    "cluster_name": "growing",
                    "max_workers": most,
                    "upscaling_speed": most,
                    "idle_timeout_minutes": 0.05,
                    "provider": provider,
                    "available_node_types": {"ray.head.default": head, "one_core": nodes},
                    "head_node_type": "ray.head.default",
                    # Of no use to nodes that are processes, but looked up.
                    **{key: {} for key in ("auth", "file_mounts")},
                    **{key: [] for key in ("cluster_synced_files", "initialization_commands")},
                    **{f"{key}_commands": [] for key in ("setup", "worker_setup", "worker_start_ray")},
                }
            )
        )
        once_a_second = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        self.add("--autoscaling-config", str(told), cpus=0, environment=once_a_second)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """All of the node's processes at once, workers included, as when the power fails."""
        for process in self.freeze(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        self._nodes.remove(node)

    @staticmethod
    def freeze(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Stop all of the node's processes, workers included; they."""
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        return processes

    def close(self) -> None:
        for node in reversed(self._nodes.copy()):
            # One that ended by itself has told why.
            if node.poll() is None:
                self.kill(node)


@contextmanager
def cluster(*, host: int = 2) -> Iterator[Cluster]:
    """One without nodes yet."""
    # Not below pytest's folder: sockets lie in it, whose paths may not be long.
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), host=host)
        try:
            yield made
        finally:
            made.close()
