"""What stages leave with a study for its readers, as plain JSON in its storage."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sweep.data.audit.finding import Audited, audited_of
from sweep.evaluation.confirmation import Confirmation, Simpler, confirmation_of, simpler_of
from sweep.evaluation.goal import Goal
from sweep.search.allowance import Budget

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the latest start was asked to do.

    purpose: as the experiment's file says it. rows: by split. config: composed, as YAML, without secrets.
    """

    purpose: str
    overrides: tuple[str, ...]
    data: str
    rows: Mapping[str, int]
    sampler: str
    scheduler: str
    config: str
    git_commit: str | None

    @property
    def command(self) -> str:
        """What was typed."""
        return shlex.join(["python", "-m", "sweep", *self.overrides])


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What the sweep handed over: this trial. leader: the search's best one at that time.

    best: the file of the configuration.
    adapter: its URI in the registry. look, next: the commands to browse the runs and to train with
    the configuration.
    """

    trial: str
    leader: str
    best: str
    adapter: str | None
    look: str
    next: str


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What stages found so far, None where one did not come to its end.

    budget: of the latest start. baselines: on confirm rows, best first. base_loss: before any training.
    """

    asked: Asked | None
    budget: Budget | None
    audit: Audited | None
    goal: Goal | None
    baselines: tuple[Simpler, ...] | None
    base_loss: float | None
    confirmation: Confirmation | None
    handed: Handed | None


def read_notes(kept: Mapping[str, Any]) -> Notes:
    """The notes from what `Study.note` kept, each under its field's name.

    One that another version of the product wrote otherwise counts as not there.
    """
    return Notes(
        asked=_read(_asked, kept.get("asked")),
        budget=_read(lambda note: Budget(**note), kept.get("budget")),
        audit=_read(audited_of, kept.get("audit")),
        goal=_read(lambda note: Goal(**note), kept.get("goal")),
        baselines=_read(lambda note: tuple(map(simpler_of, note["found"])), kept.get("baselines")),
        base_loss=kept.get("base_loss"),
        confirmation=_read(confirmation_of, kept.get("confirmation")),
        handed=_read(lambda note: Handed(**note), kept.get("handed")),
    )


def _read(build: Callable[[Mapping[str, Any]], T], note: Mapping[str, Any] | None) -> T | None:
    try:
        return build(note) if note else None
    except (TypeError, KeyError):
        return None


def _asked(note: Mapping[str, Any]) -> Asked:
    return Asked(**{**note, "overrides": tuple(note["overrides"])})
