"""What a search may still begin, given the trials and the time that are left.

Owed is what the defaults lack to their end and others to the rungs that they are on the way to: what
begins must leave time for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sweep.search.standings import Standings
from sweep.types import Standing


def may_start(standings: Standings, ladder: Sequence[int], *, trials: int, seconds_left: float) -> bool:
    """Trial 0 always may; others within the budget, leaving time to take one to the end."""
    if not standings:
        return True
    landing = ladder[0] if standings.others("complete") else ladder[-1]
    needed = _seconds_for(landing + _owed(standings, ladder), standings)
    return len(standings) < trials and seconds_left > needed


def may_advance(
    standing: Standing,
    standings: Standings,
    ladder: Sequence[int],
    *,
    stop: int,
    seconds_left: float,
) -> bool:
    """Whether the time left allows the next rung.

    Whatever the time, the defaults always get there, and so does one winner beside them; a state that was
    reached before is only scored.
    """
    needed = _seconds_for(stop - standing.reached + _owed(standings, ladder), standings)
    if seconds_left > needed or standing.trial.number == 0 or stop <= standing.reached:
        return True
    return not (standings.others("complete") or standings.others("running"))


def _owed(standings: Standings, ladder: Sequence[int]) -> int:
    """Examples, at most."""
    defaults = standings[0]
    owed = sum(trials * _to_next(reached, ladder) for reached, trials in standings.running.items())
    if defaults.ended:
        return owed
    counted = _to_next(defaults.reached, ladder) if defaults.state == "running" else 0
    return owed + ladder[-1] - defaults.reached - counted


def _to_next(reached: int, ladder: Sequence[int]) -> int:
    """Examples to the next rung; none at the end, where a trial is only scored again."""
    return next((rung - reached for rung in ladder if rung > reached), 0)


def _seconds_for(examples: int, standings: Standings) -> float:
    """What so many examples cost at the rate so far, evaluation included; 0 before the first report."""
    return standings.seconds / standings.examples * examples if standings.examples else 0.0
