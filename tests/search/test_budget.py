"""What a search may still begin in the time that is left."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.search.budget import may_advance, may_start, spread
from sweep.search.standings import Standings
from tests.studies import standing


def test_time_is_left_to_take_the_defaults_to_the_end() -> None:
    defaults = standing(0, {32: 2.0}, seconds=32.0)
    winner = standing(1, {32: 1.5, 288: 1.4}, "complete", seconds=288.0)
    paused = standing(2, {32: 1.6}, seconds=32.0)
    all_of_them, ladder = Standings([defaults, winner, paused]), (32, 96, 288)

    def allowed(seconds: float) -> tuple[bool, bool]:
        start = may_start(all_of_them, ladder, trials=9, seconds_left=seconds)
        return start, may_advance(paused, all_of_them, ladder, stop=96, seconds_left=seconds)

    assert allowed(256 + 65) == (True, True)
    assert allowed(256 + 63) == (True, False)
    assert allowed(256 + 31) == (False, False)


def test_time_is_left_for_what_is_out() -> None:
    complete = [standing(0, {288: 2.0}, "complete", seconds=288.0), standing(1, {288: 1.0}, "complete")]
    out, paused, ladder = standing(2, {32: 1.6}, "running"), standing(3, {32: 1.5}), (32, 96, 288)
    rate = 288.0 / (288 + 288 + 32 + 32)
    for seconds, allowed in ((127 * rate, False), (129 * rate, True)):
        started = Standings([*complete, out, paused])
        assert may_advance(paused, started, ladder, stop=96, seconds_left=seconds) is allowed


def test_out_of_time_one_trial_beside_the_defaults_goes_on() -> None:
    defaults, first, second = standing(0, {32: 2.0}), standing(1, {32: 1.5}), standing(2, {32: 1.6})
    ladder = (32, 96, 288)
    assert may_advance(first, Standings([defaults, first, second]), ladder, stop=96, seconds_left=0.0)
    started = Standings([defaults, standing(1, {32: 1.5}, "running"), second])
    assert not may_advance(second, started, ladder, stop=96, seconds_left=0.0)
    assert may_advance(defaults, started, ladder, stop=96, seconds_left=0.0)


def test_who_is_only_scored_again_is_owed_nothing_and_may_go_on() -> None:
    defaults, ladder = standing(0, {288: 2.0}, "complete", seconds=288.0), (32, 96, 288)
    again, paused = standing(1, {32: 1.0, 288: 1.5}, "running"), standing(2, {32: 1.6}, seconds=32.0)
    landed = standing(3, {288: 1.0}, "complete")
    rate = 320.0 / (288 + 288 + 32 + 288)
    all_of_them = Standings([defaults, again, paused, landed])
    for seconds, allowed in ((63 * rate, False), (65 * rate, True)):
        assert may_advance(paused, all_of_them, ladder, stop=96, seconds_left=seconds) is allowed
    assert may_advance(again, all_of_them, ladder, stop=32, seconds_left=0.0)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(1, 5))
def test_whatever_the_order_workers_are_done_by_the_time_that_is_reckoned(
    parts: list[int], workers: int
) -> None:
    free = [0] * workers
    for part in parts:
        heapq.heappush(free, heapq.heappop(free) + part)
    reckoned = spread(sum(parts), max(parts), workers=workers)
    assert max(sum(parts) / workers, max(parts)) - 1e-9 <= max(free) <= reckoned + 1e-9
    assert spread(sum(parts), max(parts), workers=1) == sum(parts)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 256 + 64 + 64), (2, 256 + 64), (4, 256 + 32)])
def test_what_is_owed_is_trained_by_all_workers_at_once_but_a_trial_by_one(
    workers: int, seconds: float
) -> None:
    """The defaults lack 256 examples, one trial 64 to its rung, and another as many; a second each."""
    defaults = standing(0, {32: 2.0}, seconds=32.0)
    winner = standing(1, {32: 1.5, 288: 1.4}, "complete", seconds=288.0)
    out = standing(2, {32: 1.6}, "running", seconds=32.0)
    paused = standing(3, {32: 1.6}, seconds=32.0)
    all_of_them, ladder = Standings([defaults, winner, out, paused]), (32, 96, 288)
    # A new trial is owed 32 more of its own, and the paused one nothing.
    starts = 256 + (64 + 32) / workers
    for more, allowed in ((-1, False), (1, True)):
        assert allowed is may_advance(
            paused, all_of_them, ladder, stop=96, seconds_left=seconds + more, workers=workers
        )
        assert allowed is may_start(
            all_of_them, ladder, trials=9, seconds_left=starts + more, workers=workers
        )
