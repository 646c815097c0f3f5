"""What all commands share: help, the composed configuration, errors as text, interruption as exit codes."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType

from rich.console import Console

from sweep.config import Config, Place, compose, describe, locate
from sweep.errors import ConfigError, OutageError, SweepError, is_full_disk
from sweep.redaction import Printable, printable
from sweep.usage import usage

INTERRUPTED = 130
_TERMINATED = 143


def run_command(name: str, arguments: Sequence[str], command: Callable[[Config], int]) -> int:
    """The exit code of `python -m <name> <arguments>` for a command that takes a configuration."""
    return _run(name, arguments, lambda given: command(compose(given)))


def run_reader(name: str, arguments: Sequence[str], command: Callable[[Place], int]) -> int:
    """The same for a command that only reads what a sweep has left."""
    return _run(name, arguments, lambda given: command(locate(given)))


def _run(name: str, arguments: Sequence[str], command: Callable[[Sequence[str]], int]) -> int:
    def body(arguments: Sequence[str]) -> int:
        if {"-h", "--help"} & set(arguments):
            print(printable(usage(name)), end="")
            return 0
        if not arguments:
            print(printable(usage(name)))
            raise ConfigError(
                "No experiment was named; one must be. Choose one from above, for instance python -m "
                f"{name} +experiment=support_bot, or write your own: python -m sweep.init."
            )
        if shown := [argument for argument in arguments if argument.startswith("--cfg")]:
            print(printable(describe(_without_cfg(arguments, shown[0]))), end="")
            return 0
        return command(arguments)

    return answer(name, arguments, body)


def answer(name: str, arguments: Sequence[str], body: Callable[[Sequence[str]], int]) -> int:
    """What the body of `python -m <name>` returns; 2 for an error to mend, 130 or 143 if stopped.

    What nobody foresaw ends with its traceback; there too, and in every warning, secrets are hidden.
    """
    sys.excepthook = _crash
    logging.captureWarnings(True)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Printable())
    try:
        return body(arguments)
    except SweepError as error:
        _complain(str(error))
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else "A file could not be written: "
        again = shlex.join(["python", "-m", name, *arguments])
        kept = f" What is done is kept; go on with:\n  {again}" if is_full_disk(error) else ""
        _complain(
            f"{place}{error.strerror or error}. Make it writable, free space, or change output, checkpoints, "
            f"storage or tracking.uri.{kept}"
        )
        return 2
    except Interrupted as stop:
        return _stopped(name, arguments, stop.exit_code)
    except KeyboardInterrupt:
        # Outside `interruptible`: while modules load, and in commands that only read.
        return _stopped(name, arguments, INTERRUPTED)


class Interrupted(BaseException):
    """SIGINT or SIGTERM."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def interruptible(stop: Callable[[], None] | None = None) -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted. With `stop`, the first one calls it and lets the body end
    by itself, or for want of its database, before it raises; the second leaves the process at once.
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
    except OutageError:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(received[0])


def _stopped(name: str, arguments: Sequence[str], exit_code: int) -> int:
    again = shlex.join(["python", "-m", name, *arguments])
    print(f"\nStopped. What is done is kept; go on with:\n  {printable(again)}", file=sys.stderr)
    return exit_code


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(printable("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _complain(text: str) -> None:
    Console(stderr=True).print(printable(text), style="red", highlight=False, markup=False, soft_wrap=True)


def _without_cfg(arguments: Sequence[str], option: str) -> list[str]:
    """The overrides beside `--cfg job`."""
    at = list(arguments).index(option)
    given = " ".join(arguments[at : at + 2])
    if given != "--cfg job":
        raise ConfigError(f"{given}: `job`, the composed configuration, must follow. Write --cfg job.")
    return [*arguments[:at], *arguments[at + 2 :]]
