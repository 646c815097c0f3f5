"""Tallies kept from put to put are what going through all trials finds, and so is what is decided by them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from sweep.analysis.front import winner_of
from sweep.search.budget import may_advance, may_start
from sweep.search.scheduler import Advance, Asha, Decision, Full, Scheduler, TopK
from sweep.search.standings import Standings
from sweep.types import Aimed, Standing
from tests.studies import standing

LADDER = (32, 96, 288)
SEEDS = range(10)
SCHEDULERS: tuple[Scheduler, ...] = (
    Asha(eta=2, rungs=3),
    Asha(eta=3, rungs=3),
    TopK(k=2, first_share=0.1),
    Full(),
)


def history(seed: int, *, aims: int) -> Iterator[Standing]:
    """Trials that start, reach rungs, pause and end in any order; losses are few, so that many tie."""
    draw = random.Random(seed)
    stands: list[Standing] = []
    for _ in range(150):
        going = [one for one in stands if not one.ended]
        if not going or draw.random() < 0.2:
            now = standing(len(stands), {}, draw.choice(["running", "running", "paused"]))
            stands.append(now)
        else:
            now = moved(draw.choice(going), draw, aims=aims)
            stands[int(now.trial.id)] = now
        yield now


def moved(one: Standing, draw: random.Random, *, aims: int) -> Standing:
    """Where it may stand next."""
    number = int(one.trial.id)
    if one.state == "paused":
        return replace(one, state=draw.choice(["running", "running", "running", "pruned"]))
    if draw.random() < 0.1:
        return replace(one, state=draw.choice(["failed", "diverged", "infeasible"]))
    rung = next(rung for rung in LADDER if rung > one.reached)
    values = {**one.values, rung: float(draw.randrange(6))}
    # Whole seconds add up exactly, in whatever order.
    seconds = sum(report.seconds for report in one.reports) + draw.randrange(1, 50)
    now = standing(number, values, seconds=seconds)
    if rung < LADDER[-1]:
        return now
    # What is gained by one aim is lost by the other, and half of it by chance too: the front is long.
    worth = draw.randrange(12)
    cost = worth**2 / 8 + draw.choice([0, 0, 1, 4])
    found = (Aimed("worth", float(worth), "points", True), Aimed("cost", cost, "euros", False))[:aims]
    return replace(now, state="complete", aims=found, violation=float(draw.choice([0, 0, 0, 1, 2])))


# What tallies stand for: the same questions, asked of every trial each time.


def lowest_at_the_highest_rung(stands: Sequence[Standing]) -> Standing | None:
    top = max((s.reached for s in stands), default=0)
    return min((s for s in stands if top in s.values), key=lambda s: s.values[top], default=None)


def ranked(stands: Sequence[Standing], rung: int) -> list[Standing]:
    return sorted((s for s in stands if rung in s.values), key=lambda s: (s.values[rung], s.trial.number))


def last_resort(stands: Sequence[Standing]) -> Decision:
    if stands and stands[0].state == "paused":
        return Advance("0")
    if any(s.state == "running" for s in stands):
        return "wait"
    paused = [s for s in stands[1:] if s.state == "paused" and s.values]
    if paused and not any(s.state == "complete" for s in stands[1:]):
        return Advance(min(paused, key=lambda s: (-s.reached, s.loss)).trial.id)
    return "done"


def decision(scheduler: Scheduler, stands: Sequence[Standing], *, start: bool) -> Decision:
    if isinstance(scheduler, Full):
        paused = next((s for s in stands if s.state == "paused"), None)
        return Advance(paused.trial.id) if paused else "start" if start else last_resort(stands)
    if any(s.state == "complete" for s in stands) and stands[0].state == "paused":
        return Advance("0")
    if isinstance(scheduler, Asha):
        for rung in reversed(LADDER[:-1]):
            best = ranked(stands, rung)
            for one in best[: len(best) // scheduler.eta]:
                if one.state == "paused" and one.reached == rung:
                    return Advance(one.trial.id)
        return "start" if start else last_resort(stands)
    assert isinstance(scheduler, TopK)
    if start:
        return "start"
    if any(s.state == "running" and not s.reports for s in stands):
        return "wait"
    for one in ranked(stands, LADDER[0])[: scheduler.k]:
        if one.state == "paused":
            return Advance(one.trial.id)
    return last_resort(stands)


def seconds_needed(examples: int, stands: Sequence[Standing]) -> float:
    """What these take at the rate so far, beside what the defaults and those that run are still owed."""
    for one in stands:
        if one.trial.number == 0 and not one.ended:
            examples += LADDER[-1] - one.reached
        elif one.state == "running":
            examples += next((rung for rung in LADDER if rung > one.reached), one.reached) - one.reached
    trained = sum(s.reached for s in stands)
    spent = sum(report.seconds for s in stands for report in s.reports)
    return spent / trained * examples if trained else 0.0


def starts(stands: Sequence[Standing], *, trials: int, seconds_left: float) -> bool:
    landed = any(s.state == "complete" for s in stands[1:])
    needed = seconds_needed(LADDER[0] if landed else LADDER[-1], stands)
    return not stands or (len(stands) < trials and seconds_left > needed)


def advances(one: Standing, stands: Sequence[Standing], *, stop: int, seconds_left: float) -> bool:
    enough = seconds_left > seconds_needed(stop - one.reached, stands)
    occupied = any(s.state in ("complete", "running") for s in stands[1:])
    return enough or one.trial.number == 0 or stop <= one.reached or not occupied


@pytest.mark.parametrize("aims", [0, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_after_every_put_all_is_what_going_through_every_trial_finds(seed: int, aims: int) -> None:
    kept, stands = Standings(), []
    draw = random.Random(-seed)
    for now in history(seed, aims=aims):
        stands[int(now.trial.id) :] = [now, *stands[int(now.trial.id) + 1 :]]
        kept.put(now)
        assert list(kept) == stands
        assert kept.of(now.trial.id) is now
        assert kept.examples == sum(s.reached for s in stands)
        assert kept.seconds == sum(report.seconds for s in stands for report in s.reports)
        assert +kept.states == Counter(s.state for s in stands)
        assert +kept.running == Counter(s.reached for s in stands if s.state == "running")
        assert kept.paused == [s.trial.number for s in stands if s.state == "paused"]
        assert kept.best is winner_of(stands)
        assert kept.ahead is (winner_of(stands) or lowest_at_the_highest_rung(stands))
        for rung in LADDER:
            best = ranked(stands, rung)
            paused = [s for s in best if s.state == "paused" and s.reached == rung]
            assert [place.number for place in kept.ranked(rung)] == [s.trial.number for s in best]
            assert [place.number for place in kept.waiting(rung)] == [s.trial.number for s in paused]
        for state in ("complete", "running", "paused"):
            assert kept.others(state) == sum(s.state == state for s in stands[1:])
        start, left, trials = draw.random() < 0.5, float(draw.randrange(300)), draw.choice([len(stands), 99])
        for scheduler in SCHEDULERS:
            assert scheduler.next(kept, LADDER, may_start=start) == decision(scheduler, stands, start=start)
        assert may_start(kept, LADDER, trials=trials, seconds_left=left) == starts(
            stands, trials=trials, seconds_left=left
        )
        for one in draw.sample(stands, min(3, len(stands))):
            stop = draw.choice(LADDER)
            assert may_advance(one, kept, LADDER, stop=stop, seconds_left=left) == advances(
                one, stands, stop=stop, seconds_left=left
            )


def test_histories_reach_every_decision() -> None:
    """Else the comparison above would say little."""
    made = set()
    for seed in SEEDS:
        kept = Standings()
        for now in history(seed, aims=0):
            kept.put(now)
            decided = [scheduler.next(kept, LADDER, may_start=False) for scheduler in SCHEDULERS]
            made |= {"advance" if isinstance(one, Advance) else one for one in decided}
    assert made == {"advance", "wait", "done"}


def test_before_a_trial_is_complete_the_lowest_at_the_highest_rung_is_ahead() -> None:
    early, late, later = standing(0, {32: 0.1}), standing(1, {32: 3.0, 96: 2.0}), standing(2, {96: 2.5})
    assert Standings([early, late, later]).ahead is late
    assert Standings().ahead is None
    short_run = standing(3, {32: 2.8}, "complete")
    assert Standings([early, late, later, short_run]).ahead is short_run


def test_a_trial_that_is_not_there_is_a_key_error() -> None:
    one = standing(0, {32: 1.0})
    for trial in ("1", "-1", "0/seed2", "baseline"):
        with pytest.raises(KeyError, match=trial):
            Standings([one]).of(trial)
    assert Standings([one]).of("0") is one
