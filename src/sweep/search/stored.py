"""A study as its storage holds it, for who only reads: whoever drives it is not disturbed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweep.analysis.front import winner_of
from sweep.errors import StudyError
from sweep.evaluation.confirmation import Confirmation
from sweep.search.allowance import Bound, Spent
from sweep.search.entries import JOB, NOTE, OUTLINE, SECONDS, SPENT, standing_of
from sweep.search.notes import Handed, Notes, read_notes
from sweep.search.space import Space
from sweep.types import Standing

Found = TypeVar("Found", Confirmation, Handed)


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """What was planned, and where every trial stands.

    trials: to be run in all. examples: expected of all of them. seconds_spent: driver time of the search over
    all starts. spent: by the sweep, also in other stages. devices: that it held at its latest start. ladder:
    examples seen at each rung. judged_on: validation rows there, None for all. folds: that the rungs are, if
    they are such. notes: what the stages found.
    """

    name: str
    seed: int
    base: str
    space: Space
    trials: int
    ladder: tuple[int, ...]
    judged_on: tuple[int | None, ...]
    folds: int | None
    examples: int
    seconds_spent: float
    spent: Spent
    devices: float
    standings: tuple[Standing, ...]
    notes: Notes

    @property
    def names(self) -> list[str]:
        """The searched fields of the recipe."""
        return self.space.names

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Of what the sweep may spend."""
        return self.notes.budget.bounds if self.notes.budget else ()

    @property
    def over(self) -> bool:
        """Whether the search has come to its end and its winner was handed over."""
        waiting = not all(standing.ended for standing in self.standings)
        return self.handed is not None and not waiting

    @property
    def confirmation(self) -> Confirmation | None:
        """Of the search as it stands; one that was made when another trial led counts no more."""
        return self._current(self.notes.confirmation)

    @property
    def handed(self) -> Handed | None:
        """What was handed over; when another trial led, it counts no more."""
        return self._current(self.notes.handed)

    @property
    def best(self) -> Standing | None:
        """As `winner_of` finds it."""
        return winner_of(self.standings)

    @property
    def winner(self) -> Standing | None:
        """The confirmed trial; before confirmation the best one of the search."""
        if self.confirmation is None:
            return self.best
        return next(one for one in self.standings if one.trial.id == self.confirmation.trial)

    def _current(self, found: Found | None) -> Found | None:
        return found if found and self.best and found.leader == self.best.trial.id else None


def read_study(storage: BaseStorage, name: str) -> StoredStudy:
    """The study of this name. A trial whose job is out counts as running, even if its driver is dead.

    Raises StudyError if there is none, with the names that there are.
    """
    try:
        study = storage.get_study_id_from_name(name)
    except KeyError as error:
        there = sorted(study.study_name for study in storage.get_all_studies())
        raise StudyError(
            f"There is no study named {name!r} in the storage, which holds {', '.join(there) or 'none'}. "
            "Correct name= or storage=, or begin the sweep: python -m sweep with the same arguments."
        ) from error
    attributes = storage.get_study_user_attrs(study)
    outline = attributes.get(OUTLINE, {})
    # What the latest version has added.
    if "judged_on" not in outline:
        raise StudyError(
            f"The study {name!r} was not written by a sweep of this version. Start the sweep once more, "
            "which adds what is missing, or choose another name=."
        )
    # Older studies have none.
    seed, base, folds = outline["seed"], outline["base"], outline.get("folds")
    return StoredStudy(
        name=name,
        seed=seed,
        base=base,
        space=Space.from_mapping(outline["space"]),
        trials=outline["trials"],
        ladder=tuple(outline["ladder"]),
        judged_on=tuple(outline["judged_on"]),
        folds=folds,
        examples=outline["examples"],
        seconds_spent=attributes.get(SECONDS, 0.0),
        spent=Spent(*attributes.get(SPENT, ())),
        devices=outline.get("devices", 1),
        standings=tuple(_standing(trial, seed, base, folds) for trial in storage.get_all_trials(study)),
        notes=read_notes(
            {key.removeprefix(NOTE): fact for key, fact in attributes.items() if key.startswith(NOTE)}
        ),
    )


def _standing(trial: FrozenTrial, seed: int, base: str, folds: int | None) -> Standing:
    standing = standing_of(trial, seed=seed, base=base, folds=folds)
    out = trial.user_attrs.get(JOB)
    if standing.state == "paused" and out and out["stop"] != standing.reached:
        return dataclasses.replace(standing, state="running")
    return standing
