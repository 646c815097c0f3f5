"""What all commands share: help, the composed configuration, errors as text, interruption as exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from sweep.config import Config, compose, describe, usage
from sweep.errors import SweepError

INTERRUPTED = 130
_TERMINATED = 143


def run_command(name: str, arguments: Sequence[str], command: Callable[[Config], int]) -> int:
    """The exit code of `python -m <name> <arguments>`: 0, 2 for an error to mend, 130 or 143 if stopped."""
    try:
        if not arguments or {"-h", "--help"} & set(arguments):
            print(usage(), end="")
            return 0 if arguments else 2
        if "--cfg" in arguments:
            print(describe(_without_cfg(arguments)), end="")
            return 0
        return command(compose(arguments))
    except SweepError as error:
        _complain(str(error))
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _complain(
            f"{place}{error.strerror or error}. Make it writable, free space, or change output, storage or "
            "tracking.uri."
        )
        return 2
    except Interrupted as stop:
        again = " ".join(["python -m", name, *arguments])
        print(f"\nStopped. What is done is kept; go on with:\n  {again}", file=sys.stderr)
        return stop.exit_code


class Interrupted(BaseException):
    """SIGINT or SIGTERM."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def interruptible(stop: Callable[[], None] | None = None) -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted. With `stop`, the first one calls it and lets the body end
    by itself before it raises; the second leaves the process at once.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        code = INTERRUPTED if number == signal.SIGINT else _TERMINATED
        if stop is None:
            raise Interrupted(code)
        if received:
            os._exit(code)
        received.append(code)
        print("\nStopping: the running step ends and is kept. Again to leave at once.", file=sys.stderr)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(received[0])


def _complain(text: str) -> None:
    Console(stderr=True).print(text, style="red", highlight=False, markup=False, soft_wrap=True)


def _without_cfg(arguments: Sequence[str]) -> list[str]:
    """The overrides beside `--cfg job`."""
    at = list(arguments).index("--cfg")
    return [*arguments[:at], *arguments[at + 2 :]]
