"""What a driver and its workers tell each other, beside jobs, capacities, progress and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sweep.errors import SweepError


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The first thing that a worker is told. sign_seconds: how often it has to give a sign of life.

    make_engine: what makes its engine, pickled. secrets: that are in there, known before it is read.
    """

    make_engine: bytes
    secrets: frozenset[str]
    sign_seconds: float


class Cancel(NamedTuple):
    """The jobs, of those that the worker holds, that are to stop."""

    jobs: frozenset[str]


class Sign(NamedTuple):
    """The engine goes on, with nothing to tell."""


class Warned(NamedTuple):
    """What a logger of the worker was told, a warning at least."""

    logger: str
    level: int
    text: str


class Raised(NamedTuple):
    """What ended the engine. error: where every other worker would raise the same. trace: its last lines."""

    error: SweepError | OSError | None
    trace: str
