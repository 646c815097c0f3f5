"""What a search may still begin, given the trials and the time that are left."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.types import Standing


def may_start(
    standings: Sequence[Standing], ladder: Sequence[int], *, trials: int, seconds_left: float
) -> bool:
    """Trial 0 always may; others within the budget, leaving time to take one to the end."""
    landing = ladder[-1] if _must_land(standings) else ladder[0]
    return not standings or (len(standings) < trials and seconds_left > _seconds_for(landing, standings))


def may_advance(
    standing: Standing, standings: Sequence[Standing], rungs: Sequence[int], *, seconds_left: float
) -> bool:
    """Whether the time left allows the next rung; the defaults and the first winner always get there."""
    reached = standing.reached
    rung = next(rung for rung in rungs if rung > reached)
    affordable = seconds_left > _seconds_for(rung - reached, standings)
    return affordable or standing.trial.number == 0 or _must_land(standings)


def _must_land(standings: Sequence[Standing]) -> bool:
    """Whether the search has no winner besides the defaults yet, whatever the time."""
    return not any(s.state == "complete" and s.trial.number != 0 for s in standings)


def _seconds_for(examples: int, standings: Sequence[Standing]) -> float:
    """What so many examples cost at the rate so far, evaluation included; 0 before the first report."""
    trained = sum(s.reached for s in standings)
    seconds = sum(report.seconds for s in standings for report in s.reports)
    return seconds / trained * examples if trained else 0.0
