"""Where all trials of a search stand, and what is asked of all of them at every report."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, overload

from sweep.analysis.front import contenders_of
from sweep.types import Standing, TrialState


class Place(NamedTuple):
    """Of a trial at a rung: the lower loss comes first, of equals the older trial."""

    loss: float
    number: int


class Standings(Sequence[Standing]):
    """The trials in order of their number, from 0 without gaps, with tallies that `put` keeps.

    So that a report costs after ten thousand trials what it cost after ten, nothing here and in what decides
    by it goes through all of them. A complete trial must stay as it is.

    examples, seconds: that all of them were trained, evaluation included in the seconds. states: how many are
    in each. running: how many run, by the examples that they have reached. paused: numbers, ascending. best:
    as `winner_of` finds it. ahead: the same; before a trial is complete, the lowest loss at the highest rung.
    """

    def __init__(self, standings: Iterable[Standing] = ()) -> None:
        self.examples = 0
        self.seconds = 0.0
        self.states: Counter[TrialState] = Counter()
        self.running: Counter[int] = Counter()
        self.paused: list[int] = []
        self.best: Standing | None = None
        self.ahead: Standing | None = None
        self._all: list[Standing] = []
        self._leading: tuple[Standing, ...] = ()
        self._ranked: defaultdict[int, list[Place]] = defaultdict(list)
        self._waiting: defaultdict[int, list[Place]] = defaultdict(list)
        for standing in standings:
            self.put(standing)

    @overload
    def __getitem__(self, place: int) -> Standing: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Standing, ...]: ...

    def __getitem__(self, place: int | slice) -> Standing | tuple[Standing, ...]:
        return self._all[place] if isinstance(place, int) else tuple(self._all[place])

    def __len__(self) -> int:
        return len(self._all)

    def of(self, trial: str) -> Standing:
        """Of the trial with this id. Raises KeyError if there is none."""
        if not trial.isdecimal() or int(trial) >= len(self):
            raise KeyError(trial)
        return self._all[int(trial)]

    def is_paused(self, number: int) -> bool:
        """Whether there is a trial of this number that is."""
        return number < len(self) and self._all[number].state == "paused"

    def others(self, state: TrialState) -> int:
        """How many are in this state besides trial 0."""
        return self.states[state] - (bool(self._all) and self._all[0].state == state)

    def ranked(self, rung: int) -> Sequence[Place]:
        """Those with a loss at this rung, best first."""
        return self._ranked[rung]

    def waiting(self, rung: int) -> Sequence[Place]:
        """Those of them that are paused there."""
        return self._waiting[rung]

    def put(self, standing: Standing) -> None:
        """Where the trial stands now; it is one of these or the next."""
        number = _number(standing)
        if number < len(self):
            self._count(self._all[number], -1)
            self._all[number] = standing
        else:
            self._all.append(standing)
        self._count(standing, 1)
        if standing.state == "complete":
            others = (one for one in self._leading if _number(one) != number)
            self._leading = contenders_of(sorted((*others, standing), key=_number))
            self.best = self._leading[0]
        self.ahead = self.best or self._lowest()

    def _count(self, standing: Standing, by: Literal[1, -1]) -> None:
        """Into the tallies, or out of them."""
        number, values = _number(standing), standing.values
        reached = max(values, default=0)
        change: Callable[[list[Any], Any], None] = insort if by > 0 else _remove
        self.examples += by * reached
        self.seconds += by * sum(report.seconds for report in standing.reports)
        self.states[standing.state] += by
        for rung, loss in values.items():
            change(self._ranked[rung], Place(loss, number))
        if standing.state == "running":
            self.running[reached] += by
        if standing.state == "paused":
            change(self.paused, number)
            if reached:
                change(self._waiting[reached], Place(values[reached], number))

    def _lowest(self) -> Standing | None:
        top = max((rung for rung, places in self._ranked.items() if places), default=None)
        return None if top is None else self._all[self._ranked[top][0].number]


def _number(standing: Standing) -> int:
    assert standing.trial.number is not None, "trials of a search have numbers"
    return standing.trial.number


def _remove(ascending: list[Any], item: Any) -> None:
    del ascending[bisect_left(ascending, item)]
