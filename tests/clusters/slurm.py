"""A real SLURM of two nodes on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

_CONFIGURATION = """\
ClusterName=sweep
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=10
SlurmdTimeout=10
GresTypes=gpu
NodeName=n[1-2] NodeAddr=127.0.0.[2-3] Port=[16821-16822] CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Nodes n1 and n2, with two cores and a stand-in for a GPU each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=self.folder))
        (self.folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/zero\n")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        own = {name: f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
        self._begin(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *own.values()
        )
        self._begin("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            self._begin("slurmd", "-D", "-N", node, name=node)

    def stop(self) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait(30)

    def fail(self, node: str) -> None:
        """Kill the node's daemon and whatever it runs, as where its power goes."""
        self._daemons[node].kill()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    process.kill()

    def run(self, *command: str | Path, cwd: Path | None = None, **environment: str) -> str:
        """What the command prints. environment: what jobs get beside that of this process."""
        done = subprocess.run(
            command,
            env={**self._environment, **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """SLURM's word for where the job stands, such as COMPLETED."""
        return self._shown(job, "JobState")

    def restarts(self, job: str) -> int:
        """How often the job was queued again."""
        return int(self._shown(job, "Restarts"))

    def _shown(self, job: str, key: str) -> str:
        return self.run("scontrol", "show", "job", job).partition(f"{key}=")[2].split()[0]

    def _begin(self, program: str, *arguments: str, name: str | None = None) -> None:
        with (self.folder / f"{name or program}.log").open("wb") as log:
            self._daemons[name or program] = subprocess.Popen(
                [program, *arguments], env=self._environment, stdout=log, stderr=log
            )


def lacking() -> str | None:
    """What a SLURM needs and this machine lacks."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "a SLURM for tests is root's"


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """A SLURM, stopped on leaving."""
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
