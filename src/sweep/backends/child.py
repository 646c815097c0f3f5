"""A worker as a child of this process, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from sweep.backends.seat import End

# A message that has begun comes, or goes, whole within this time, or its worker hangs.
_MESSAGE_SECONDS = 60
_EXIT_SECONDS = 5.0


class Child:
    """A worker process, told a pickled `Setting` at its start; `link` is the socket to it."""

    def __init__(
        self,
        name: str,
        setting: bytes,
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _MESSAGE_SECONDS, 0))
        log.parent.mkdir(parents=True, exist_ok=True)
        # A group of its own: what a terminal sends to the driver's group does not reach it, and the kernel
        # wakes a stopped one when the driver is gone.
        with log.open("ab") as lines, theirs:
            self._program = subprocess.Popen(
                # -P: where its driver did not look, in the working directory above all, it must not either.
                [sys.executable, "-P", "-m", "sweep.backends.worker", name, str(theirs.fileno())],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.link = Connection(ours.detach())
        self.send(setting)

    def send(self, message: bytes) -> None:
        try:
            self.link.send_bytes(message)
        except OSError:
            # It is gone, or hangs and heard half of it: what it still says counts, then it is at its end.
            self._kill()

    def receive(self) -> bytes:
        if self.has_ended():
            raise EOFError
        return self.link.recv_bytes()

    def has_ended(self) -> bool:
        """Whether it is gone and nothing of what it said is left to hear."""
        return self._program.poll() is not None and not self.link.poll()

    def end(self, *, wait: bool) -> End:
        code = self._exit_code() if wait else None
        self._kill()
        self.link.close()
        return End(in_words(self._exit_code() if code is None else code))

    def _kill(self) -> None:
        """End the worker, and what it has started; once it is gone that ends by itself."""
        if self._program.poll() is None:
            os.killpg(self._program.pid, signal.SIGKILL)

    def _exit_code(self) -> int | None:
        try:
            return self._program.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def in_words(code: int | None) -> str:
    """How a process ended, or that it does not."""
    if code is None:
        return "does not end, held by the kernel"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), which is often the system's doing where memory runs out"
    return f"was ended by {name}"
