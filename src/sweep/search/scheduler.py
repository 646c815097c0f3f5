"""Which trial advances next. Each class is one file of `conf/scheduler/`; its keys are the fields.

A schedule sees where every trial stands and answers with one decision. It keeps no state, so a
restarted driver decides from the study alone. Trial 0, the recipe's own values, starts first and
always gets to the end, for every claim about the winner is a comparison with it. Where schedules
halve, it goes on by merit, when another trial has got there, or when nothing else can.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.trial import FrozenTrial

from sweep.search.ladder import check_ladder, examples_of, geometric_ladder, reaching
from sweep.search.standings import Standings


class Advance(NamedTuple):
    """Take this paused trial to its next rung."""

    trial: str


Decision = Advance | Literal["start", "wait", "done"]


class Scheduler(Protocol):
    """Guarantees: `next` and `ladder` are pure; "done" only when no trial is running."""

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        """Examples seen at each rung, ascending, multiples of `unit`, the last one `horizon`."""

    def examples(self, ladder: Sequence[int], trials: int) -> int:
        """About how many examples `trials` trials train in all; an upper bound where pruners decide."""

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a trial that has just reached a rung may go on at all."""

    def next(self, standings: Standings, ladder: Sequence[int], *, may_start: bool) -> Decision:
        """What to do with a free slot. may_start: the budget allows another trial."""

    def out(self, standings: Standings, ladder: Sequence[int], *, trials: int) -> frozenset[str]:
        """Paused trials that `next` advances no more, whatever so many trials in all bring.

        A last resort apart: their states are removed, and one that goes on all the same begins again.
        """

    def waiting(self, ladder: Sequence[int], trials: int) -> int:
        """About how many states trials keep between rungs at once, at most."""


@dataclass(frozen=True, kw_only=True)
class Asha:
    """Promotion-type asynchronous successive halving over resumable rungs, one bracket.

    A trial advances when it is among the best 1 / eta of those that reached its rung.
    Source: Li et al. 2020, arXiv:1810.05934, algorithm 2.
    """

    eta: int
    rungs: int

    def __post_init__(self) -> None:
        check_ladder(self.eta, self.rungs)

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        return geometric_ladder(horizon, unit, eta=self.eta, rungs=self.rungs)

    def examples(self, ladder: Sequence[int], trials: int) -> int:
        return examples_of(ladder, self._arrivals(ladder, trials))

    def _arrivals(self, ladder: Sequence[int], trials: int) -> list[int]:
        # The defaults reach each rung, and of the others one at least.
        others = reaching(trials - 1, rungs=len(ladder), eta=self.eta)
        return [1 + max(arrivals, min(trials - 1, 1)) for arrivals in others]

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        return True

    def next(self, standings: Standings, ladder: Sequence[int], *, may_start: bool) -> Decision:
        if due := _defaults_due(standings):
            return due
        for rung in reversed(ladder[:-1]):
            ranked, waiting = standings.ranked(rung), standings.waiting(rung)
            best = len(ranked) // self.eta
            if waiting and best and waiting[0] <= ranked[best - 1]:
                return Advance(str(waiting[0].number))
        if may_start:
            return "start"
        return _last_resort(standings)

    def out(self, standings: Standings, ladder: Sequence[int], *, trials: int) -> frozenset[str]:
        out: set[str] = set()
        for rung in ladder[:-1]:
            # Ranks only get worse, and no more can come to this rung than have not missed it.
            missed = sum(rung not in s.values and (s.ended or s.trial.id in out) for s in standings)
            best = (max(trials, len(standings)) - missed) // self.eta
            out |= _behind(standings, rung, best)
        return frozenset(out)

    def waiting(self, ladder: Sequence[int], trials: int) -> int:
        if len(ladder) == 1:
            return 0
        *higher, _ = self._arrivals(ladder, trials)[1:]
        return min(trials, trials // self.eta + 1) + 2 * sum(higher)


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The first `first_share` for every trial, then the best `k` to the end.

    The baseline that most multi-fidelity methods fail to beat: Egele et al. 2023, arXiv:2307.15422.
    """

    k: int
    first_share: float

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 < self.first_share < 1:
            given = f"k={self.k}, first_share={self.first_share}"
            raise ValueError(f"needs k >= 1 and 0 < first_share < 1, got {given}")

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        first = max(unit, round(self.first_share * horizon / unit) * unit)
        return (first, horizon) if first < horizon else (horizon,)

    def examples(self, ladder: Sequence[int], trials: int) -> int:
        return examples_of(ladder, [trials, min(trials, self.k + 1)])

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        return True

    def next(self, standings: Standings, ladder: Sequence[int], *, may_start: bool) -> Decision:
        if due := _defaults_due(standings):
            return due
        if may_start:
            return "start"
        if standings.running[0]:
            return "wait"
        for place in standings.ranked(ladder[0])[: self.k]:
            if standings[place.number].state == "paused":
                return Advance(str(place.number))
        return _last_resort(standings)

    def out(self, standings: Standings, ladder: Sequence[int], *, trials: int) -> frozenset[str]:
        return _behind(standings, ladder[0], self.k) if len(ladder) > 1 else frozenset()

    def waiting(self, ladder: Sequence[int], trials: int) -> int:
        return min(trials, self.k + 1)


class _StraightOn:
    """Each trial goes on until it ends; another is begun when none waits."""

    def examples(self, ladder: Sequence[int], trials: int) -> int:
        return trials * ladder[-1]

    def next(self, standings: Standings, ladder: Sequence[int], *, may_start: bool) -> Decision:
        if standings.paused:
            return Advance(str(standings.paused[0]))
        if may_start:
            return "start"
        return _last_resort(standings)

    def out(self, standings: Standings, ladder: Sequence[int], *, trials: int) -> frozenset[str]:
        return frozenset()

    def waiting(self, ladder: Sequence[int], trials: int) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Full(_StraightOn):
    """Every trial to the end, one after another."""

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        return (horizon,)

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Pruned(_StraightOn):
    """Every trial straight on from rung to rung, until an Optuna pruner stops it."""

    eta: int
    rungs: int
    pruner: BasePruner

    def __post_init__(self) -> None:
        check_ladder(self.eta, self.rungs)

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        return geometric_ladder(horizon, unit, eta=self.eta, rungs=self.rungs)

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        return trial.number == 0 or not self.pruner.prune(study, trial)


@dataclass(frozen=True, kw_only=True)
class Wilcoxon(_StraightOn):
    """Every trial straight on from fold to fold, until it is surely worse than the best one on the same.

    Fold losses are paired between trials: the same rows, the same order of training. Fields are those of
    Optuna's `WilcoxonPruner`.
    """

    p_threshold: float
    n_startup_steps: int

    def __post_init__(self) -> None:
        if not 0 < self.p_threshold <= 1 or self.n_startup_steps < 0:
            given = f"p_threshold={self.p_threshold}, n_startup_steps={self.n_startup_steps}"
            raise ValueError(f"needs 0 < p_threshold <= 1 and n_startup_steps >= 0, got {given}")

    @property
    def soonest(self) -> int:
        """The fewest folds after which a trial can be stopped: n pairs give no p below 1 / 2^n."""
        possible = math.floor(-math.log2(self.p_threshold)) + 1
        return max(2, self.n_startup_steps, possible)

    def ladder(self, horizon: int, unit: int) -> tuple[int, ...]:
        return (horizon,)

    def keeps(self, study: Study, trial: FrozenTrial) -> bool:
        with warnings.catch_warnings():
            # The configuration chose it.
            warnings.simplefilter("ignore", ExperimentalWarning)
            pruner = WilcoxonPruner(p_threshold=self.p_threshold, n_startup_steps=self.n_startup_steps)
        return trial.number == 0 or not pruner.prune(study, trial)


def _defaults_due(standings: Standings) -> Advance | None:
    """The defaults' next rung, once another trial is complete: earlier there is nothing to compare."""
    return _defaults_advance(standings) if standings.states["complete"] else None


def _defaults_advance(standings: Standings) -> Advance | None:
    return Advance("0") if standings and standings[0].state == "paused" else None


def _behind(standings: Standings, rung: int, best: int) -> frozenset[str]:
    """Those that wait at this rung, not among its so many best; not the defaults, nor a last resort."""
    waiting = [place for place in standings.waiting(rung) if place.number != 0]
    resort = waiting[: 0 if standings.others("complete") else 1]
    chosen = {place.number for place in (*standings.ranked(rung)[:best], *resort)}
    return frozenset(str(place.number) for place in waiting if place.number not in chosen)


def _last_resort(standings: Standings) -> Decision:
    """Nothing is promotable and nothing may start: a search must still end with a winner to compare.

    The defaults go on to their end, and the best paused trial of the highest occupied rung until one
    besides them is complete.
    """
    if advance := _defaults_advance(standings):
        return advance
    if standings.states["running"]:
        return "wait"
    if standings.others("complete"):
        return "done"
    paused = [one for one in map(standings.__getitem__, standings.paused) if one.values]
    best = min(paused, key=lambda one: (-one.reached, one.loss), default=None)
    return Advance(best.trial.id) if best else "done"
