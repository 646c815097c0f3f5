"""What stands on a node of a Ray cluster: it holds one worker there, and carries messages to and fro."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal, NamedTuple

import ray

from sweep.backends.child import Child
from sweep.backends.messages import Raised
from sweep.backends.seat import End
from sweep.errors import ConfigError

_TICK_SECONDS = 0.2
_MOST_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Hire:
    """A worker to be started. folder: where the driver runs.

    marks: files that the driver wrote, by the configuration's key that says where.
    """

    name: str
    setting: bytes
    log: Path
    marks: Mapping[str, Path]
    folder: Path


class Heard(NamedTuple):
    """What a worker said, pickled. end: whether it is gone then, or stuck in the middle of a message."""

    messages: list[bytes]
    end: Literal["", "gone", "stuck"] = ""


class Post:
    """An actor; `receive`, which waits for the worker, `send` and `end` each need a thread of their own.

    environment: what the worker's differs in from the node's; None takes a variable away. Between them and
    the driver there is only Ray: where Ray ends this process, the worker's socket closes, and it exits.
    """

    def __init__(self, environment: Mapping[str, str | None]) -> None:
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self._child: Child | None = None

    def place(self) -> tuple[str, str]:
        """The node's id in the cluster, and its host's name."""
        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def start(self, hire: Hire) -> Heard:
        """Nothing yet; or, where no worker can be started here, why."""
        try:
            _require_shared(hire)
            self._child = Child(
                hire.name,
                hire.setting,
                log=hire.log,
                environment={},
                folder=hire.folder if hire.folder.is_dir() else None,
            )
        except (ConfigError, OSError) as error:
            return Heard([pickle.dumps(Raised(error, ""))], "gone")
        return Heard([])

    def send(self, message: bytes) -> None:
        assert self._child is not None
        self._child.send(message)

    def receive(self) -> Heard:
        """At least one message, and what others there are; none from a worker at its end."""
        child, messages = self._child, list[bytes]()
        assert child is not None
        try:
            while not (wait([child.link], _TICK_SECONDS) or child.has_ended()):
                pass
            messages.append(child.receive())
            while len(messages) < _MOST_AT_ONCE and child.link.poll():
                messages.append(child.receive())
        except BlockingIOError:
            return Heard(messages, "stuck")
        except (EOFError, OSError):
            return Heard(messages, "gone")
        return Heard(messages)

    def end(self, *, wait: bool) -> End:
        if self._child is None:
            return End("had not begun")
        return self._child.end(wait=wait)


def _require_shared(hire: Hire) -> None:
    """Nothing, or ConfigError: what one worker writes another would not find."""
    for key, mark in hire.marks.items():
        if not mark.is_file():
            url = ", or to a URL of fsspec" if key == "checkpoints" else ""
            raise ConfigError(
                f"{key}: {mark}, which the driver wrote, is not on {socket.gethostname()}, where worker "
                f"{hire.name} was to start. It must be a folder that all nodes see under the same path. Set "
                f"{key} to one on a file system that they share{url}."
            )
