"""What confirmation found: who won, by how much, over whom, and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.evaluation.compare import Difference
from sweep.evaluation.selection import Better
from sweep.evaluation.slices import Slice
from sweep.evaluation.verdict import Comparison, Judgement
from sweep.types import Score, Verdict


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A trial trained again with fresh seeds: the mean of them. loss: in the search, None if not complete.

    confirm: on the split that chooses. test: on the one that is opened once, None where it did not get there.
    """

    trial: str
    loss: float | None
    confirm: Score
    test: Score | None


@dataclass(frozen=True, kw_only=True)
class Simpler:
    """What answers without training, on the same rows. succeeds: it meets the goal's limits by itself."""

    name: str
    description: str
    confirm: Score
    test: Score | None
    succeeds: bool


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The trial that won, and against whom.

    leader: the search's best trial at that time. objective, unit, better: what values are. seeds: of each
    finalist. finalists: best first, the recipe's own values last. verdicts: limits, guards and proxy, of the
    winner on test rows. slices: the winner less the best baseline. opened: how often the test rows were, by
    whatever study; opened_by: the other ones. as_good: finalists whose value on confirm rows hardly differs
    from the winner's, so that the loss chose among them.
    """

    leader: str
    trial: str
    objective: str
    unit: str
    better: Better
    seeds: int
    finalists: tuple[Finalist, ...]
    baselines: tuple[Simpler, ...]
    judgement: Judgement
    verdicts: tuple[Verdict, ...]
    slices: tuple[Slice, ...]
    opened: int
    opened_by: tuple[str, ...]
    as_good: tuple[str, ...]

    @property
    def winner(self) -> Finalist:
        """Whose trial it is."""
        return next(one for one in self.finalists if one.trial == self.trial)

    @property
    def defaults(self) -> Finalist | None:
        """The recipe's own values, None where they could not be trained."""
        return next((one for one in self.finalists if one.trial == "0"), None)

    @property
    def baseline(self) -> Simpler | None:
        """The best one, which alone was asked the test rows."""
        return next((one for one in self.baselines if one.test is not None), None)

    def against(self, rival: str) -> Difference | None:
        """The winner less that rival on test rows."""
        found = (one.difference for one in self.judgement.comparisons if one.rival == rival)
        return next(found, None)


def confirmation_of(note: Mapping[str, Any]) -> Confirmation:
    """The confirmation from what `asdict` made of it. Raises TypeError or KeyError where it is none."""
    return Confirmation(
        **{
            **note,
            "finalists": tuple(Finalist(**_scored(one)) for one in note["finalists"]),
            "baselines": tuple(map(simpler_of, note["baselines"])),
            "judgement": _judgement(note["judgement"]),
            "verdicts": tuple(Verdict(**one) for one in note["verdicts"]),
            "slices": tuple(
                Slice(**{**one, "difference": Difference(**one["difference"])}) for one in note["slices"]
            ),
            "opened_by": tuple(note.get("opened_by", ())),
            "as_good": tuple(note.get("as_good", ())),
        }
    )


def simpler_of(note: Mapping[str, Any]) -> Simpler:
    """The same for a simpler way."""
    return Simpler(**_scored(note))


def _judgement(note: Mapping[str, Any]) -> Judgement:
    comparisons = tuple(
        Comparison(**{**one, "difference": Difference(**one["difference"])}) for one in note["comparisons"]
    )
    return Judgement(outcome=note["outcome"], verdict=Verdict(**note["verdict"]), comparisons=comparisons)


def _scored(note: Mapping[str, Any]) -> dict[str, Any]:
    test = note["test"]
    return {**note, "confirm": Score(**note["confirm"]), "test": Score(**test) if test else None}
