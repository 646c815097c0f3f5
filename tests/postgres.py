"""A real PostgreSQL server, to be stopped, killed and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OWNER = "sweep"


class Postgres:
    """On a port of its own of 127.0.0.1, its data in a new folder below `/tmp`, which outlive a stop.

    Root starts it as the user `postgres`, for the server refuses root.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres_", dir="/tmp"))
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._data = self.folder / "data"
        self._run("initdb", "-D", self._data, "-U", _OWNER, "--auth=trust", "--encoding=UTF8", "--no-sync")

    @property
    def url(self) -> str:
        """Of the database that every server has."""
        return self._url("postgres")

    def create(self, name: str) -> str:
        """The URL of a new database."""
        self.query(f'CREATE DATABASE "{name}"')
        return self._url(name)

    def create_user(self, name: str, password: str) -> None:
        """Who may do everything, and must give the password."""
        self.query(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}'")
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {name} all scram-sha-256\n{rules.read_text()}")
        self.query("SELECT pg_reload_conf()")

    def query(self, statement: str) -> str:
        """What the statement finds, as the owner of everything, columns separated by `|`."""
        return self._run("psql", "-XAtq", *self._place, "-d", "postgres", "-c", statement).stdout.strip()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        listening = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=")
        settings = (*listening, "fsync=off")
        options = " ".join(f"-c {setting}" for setting in settings)
        self._control("start", "-w", "-t", "300", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, immediate: bool = False) -> None:
        """Close every connection and stop; immediate: as a crash does, in the middle of whatever runs."""
        self._control("stop", "-w", "-t", "300", "-m", "immediate" if immediate else "fast")

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop it, if it runs, and delete its data."""
        if (self._data / "postmaster.pid").exists():
            self.stop(immediate=True)
        shutil.rmtree(self.folder)

    @property
    def _place(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", _OWNER)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{_OWNER}@127.0.0.1:{self.port}/{database}"

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-s", "-D", self._data, *arguments)

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        folder = programs()
        assert folder is not None
        # The server would inherit a pipe, and who reads to its end would wait for the server's.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [folder / program, *arguments],
                cwd=self.folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
            said.seek(0)
            text = said.read()
        assert done.returncode == 0, f"{program} {arguments}: {text}"
        return subprocess.CompletedProcess(done.args, done.returncode, text)


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest version's; None where none is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda at: int(at.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running() -> Iterator[Postgres]:
    """A server that answers, removed in the end. Skips the test where PostgreSQL is not installed."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()
