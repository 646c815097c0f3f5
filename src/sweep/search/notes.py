"""What stages leave with a study for its readers, as plain JSON in its storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.evaluation.compare import Confirmation, Difference
from sweep.types import Score, Verdict


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


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What the sweep handed over. best: the file of the configuration. adapter: its URI in the registry.

    look, next: the commands to browse the runs and to train with the configuration.
    """

    best: str
    adapter: str | None
    look: str
    next: str


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What stages found so far, None where one did not come to its end. base_loss: before any training."""

    asked: Asked | None
    base_loss: float | None
    confirmation: Confirmation | None
    handed: Handed | None


def read_notes(kept: Mapping[str, Any]) -> Notes:
    """The notes from what `Study.note` kept, each under its field's name."""
    asked, confirmation, handed = (kept.get(name) for name in ("asked", "confirmation", "handed"))
    return Notes(
        asked=Asked(**{**asked, "overrides": tuple(asked["overrides"])}) if asked else None,
        base_loss=kept.get("base_loss"),
        confirmation=_confirmation(confirmation) if confirmation else None,
        handed=Handed(**handed) if handed else None,
    )


def _confirmation(kept: Mapping[str, Any]) -> Confirmation:
    defaults, difference = kept["defaults"], kept["difference"]
    return Confirmation(
        trial=kept["trial"],
        best=Score(**kept["best"]),
        defaults=Score(**defaults) if defaults else None,
        difference=Difference(**difference) if difference else None,
        verdict=Verdict(**kept["verdict"]),
    )
