"""What a search may still begin, given the trials and the time that are left.

Owed is what the defaults lack to their end and others to the rungs that they are on the way to: what
begins must leave time for it. Trials are trained one after another, or so many at once as there are
workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sweep.search.standings import Standings
from sweep.types import Standing


def may_start(
    standings: Standings,
    ladder: Sequence[int],
    *,
    trials: int,
    seconds_left: float,
    workers: int = 1,
) -> bool:
    """Trial 0 always may; others within the budget, leaving time to take one to the end."""
    if not standings:
        return True
    landing = ladder[0] if standings.others("complete") else ladder[-1]
    needed = _seconds_for(_owed(standings, ladder) + Counter([landing]), standings, workers)
    return len(standings) < trials and seconds_left > needed


def may_advance(
    standing: Standing,
    standings: Standings,
    ladder: Sequence[int],
    *,
    stop: int,
    seconds_left: float,
    workers: int = 1,
) -> bool:
    """Whether the time left allows the next rung.

    Whatever the time, the defaults always get there, and so does one winner beside them; a state that was
    reached before is only scored.
    """
    rest = Counter([stop - standing.reached])
    needed = _seconds_for(_owed(standings, ladder) + rest, standings, workers)
    if seconds_left > needed or standing.trial.number == 0 or stop <= standing.reached:
        return True
    return not (standings.others("complete") or standings.others("running"))


def spread(total: float, longest: float, *, workers: int) -> float:
    """How long work takes at most where each of so many workers takes the next part of it when it is free.

    longest: of the parts. Source: Graham 1969, Bounds on multiprocessing timing anomalies, theorem 2.
    """
    return longest + (total - longest) / workers


def _owed(standings: Standings, ladder: Sequence[int]) -> Counter[int]:
    """How many trials are owed so many examples, at most."""
    defaults, owed = standings[0], Counter[int]()
    for reached, trials in standings.running.items():
        owed[_to_next(reached, ladder)] += trials
    if defaults.state == "running":
        owed[_to_next(defaults.reached, ladder)] -= 1
    if not defaults.ended:
        owed[ladder[-1] - defaults.reached] += 1
    return owed


def _to_next(reached: int, ladder: Sequence[int]) -> int:
    """Examples to the next rung; none at the end, where a trial is only scored again."""
    return next((rung - reached for rung in ladder if rung > reached), 0)


def _seconds_for(examples: Counter[int], standings: Standings, workers: int) -> float:
    """What so many trials with so many examples each take at the rate so far, scoring included; 0 before the
    first report.
    """
    if not standings.examples:
        return 0.0
    total = sum(each * trials for each, trials in examples.items())
    longest = max(each for each, trials in examples.items() if trials)
    return standings.seconds / standings.examples * spread(total, longest, workers=workers)
