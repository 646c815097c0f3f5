"""What a search may still begin, given the trials and the time that are left.

Owed is what the defaults lack to their end and others to the rungs that they are on the way to: what
begins must leave time for it. Trials are trained one after another, or so many at once as there are
workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from sweep.types import Standing


def may_start(
    standings: Sequence[Standing],
    ladder: Sequence[int],
    *,
    trials: int,
    seconds_left: float,
    workers: int = 1,
) -> bool:
    """Trial 0 always may; others within the budget, leaving time to take one to the end."""
    landing = ladder[0] if _landed(standings) else ladder[-1]
    needed = _seconds_for([landing, *_owed(standings, ladder)], standings, workers)
    return not standings or (len(standings) < trials and seconds_left > needed)


def may_advance(
    standing: Standing,
    standings: Sequence[Standing],
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
    needed = _seconds_for([stop - standing.reached, *_owed(standings, ladder)], standings, workers)
    if seconds_left > needed or standing.trial.number == 0 or stop <= standing.reached:
        return True
    return not (_landed(standings) or any(s.state == "running" for s in _others(standings)))


def spread(total: float, longest: float, *, workers: int) -> float:
    """How long work takes at most where each of so many workers takes the next part of it when it is free.

    longest: of the parts. Source: Graham 1969, Bounds on multiprocessing timing anomalies, theorem 2.
    """
    return longest + (total - longest) / workers


def _landed(standings: Sequence[Standing]) -> bool:
    """Whether the search has a winner besides the defaults."""
    return any(s.state == "complete" for s in _others(standings))


def _owed(standings: Sequence[Standing], ladder: Sequence[int]) -> list[int]:
    """Examples of each trial that is owed any, at most."""
    defaults = (s for s in standings if s.trial.number == 0 and not s.ended)
    out = (s for s in _others(standings) if s.state == "running")
    lacking = [ladder[-1] - s.reached for s in defaults]
    return lacking + [_next_rung(s.reached, ladder) - s.reached for s in out]


def _next_rung(reached: int, ladder: Sequence[int]) -> int:
    """The rung after so many examples; the same at the end, where a trial is only scored again."""
    return next((rung for rung in ladder if rung > reached), reached)


def _others(standings: Sequence[Standing]) -> list[Standing]:
    return [s for s in standings if s.trial.number != 0]


def _seconds_for(examples: Sequence[int], standings: Sequence[Standing], workers: int) -> float:
    """What trials with so many each take at the rate so far, scoring included; 0 before the first report."""
    trained = sum(s.reached for s in standings)
    seconds = sum(report.seconds for s in standings for report in s.reports)
    return seconds / trained * spread(sum(examples), max(examples), workers=workers) if trained else 0.0
