"""Schedules as pure decisions over standings."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sweep.search.ladder import geometric_ladder
from sweep.search.scheduler import Advance, Asha, Full, Pruned, Scheduler, TopK
from sweep.search.standings import Standings
from tests.studies import standing

DONE_DEFAULTS = standing(0, {32: 2.0, 96: 1.9, 288: 1.8}, "complete")


def run_all(scheduler: Scheduler, losses: list[float], ladder: tuple[int, ...]) -> Standings:
    """Drive a schedule with one slot; a trial keeps its loss at every rung."""
    standings = Standings()
    while True:
        decision = scheduler.next(standings, ladder, may_start=len(standings) < len(losses))
        if decision == "start":
            number = len(standings)
            standings.put(standing(number, {ladder[0]: losses[number]}))
        elif isinstance(decision, Advance):
            number = int(decision.trial)
            rung = next(r for r in ladder if r not in standings[number].values)
            standings.put(standing(number, {**standings[number].values, rung: losses[number]}))
        else:
            assert decision == "done"
            return standings
        last = standings[number]
        if max(last.values) == ladder[-1]:
            standings.put(replace(last, state="complete"))


def test_rungs_grow_by_eta_and_end_at_the_horizon() -> None:
    assert geometric_ladder(288, 8, eta=3, rungs=3) == (32, 96, 288)
    assert geometric_ladder(1000, 32, eta=4, rungs=3) == (32, 224, 1000)


def test_a_short_horizon_has_fewer_rungs_and_never_one_below_a_batch() -> None:
    assert geometric_ladder(64, 32, eta=3, rungs=4) == (64,)
    assert geometric_ladder(8, 8, eta=3, rungs=3) == (8,)


@pytest.mark.parametrize("scheduler", [Asha(eta=3, rungs=3), TopK(k=3, first_share=0.25)])
def test_the_defaults_follow_the_first_trial_that_got_to_the_end(scheduler: Scheduler) -> None:
    paused, other = standing(0, {32: 9.9}), standing(1, {32: 1.5})
    complete = standing(1, {32: 1.5, 288: 1.4}, "complete")
    ladder = (32, 288)
    assert scheduler.next(Standings([paused, other]), ladder, may_start=True) == "start"
    assert scheduler.next(Standings([paused, complete]), ladder, may_start=True) == Advance("0")
    running = Standings([paused, replace(other, state="running")])
    assert scheduler.next(running, ladder, may_start=False) == Advance("0")


def test_asha_promotes_only_the_best_third() -> None:
    asha = Asha(eta=3, rungs=3)
    two = [DONE_DEFAULTS, standing(1, {32: 1.5})]
    assert asha.next(Standings(two), (32, 96, 288), may_start=True) == "start"
    three = [*two, standing(2, {32: 1.7})]
    assert asha.next(Standings(three), (32, 96, 288), may_start=True) == Advance("1")


def test_asha_prefers_the_highest_rung() -> None:
    standings = Standings(
        [
            DONE_DEFAULTS,
            standing(1, {32: 1.5, 96: 1.4}),
            standing(2, {32: 1.6, 96: 1.5}),
            standing(3, {32: 1.4}),
        ]
    )
    assert Asha(eta=3, rungs=3).next(standings, (32, 96, 288), may_start=True) == Advance("1")


@pytest.mark.parametrize(
    "scheduler", [Asha(eta=3, rungs=3), Asha(eta=4, rungs=2), TopK(k=3, first_share=0.25), Full()]
)
@pytest.mark.parametrize("trials", [1, 2, 5, 40])
def test_every_schedule_ends_with_the_defaults_and_a_winner_complete(
    scheduler: Scheduler, trials: int
) -> None:
    losses = [random.Random(trials).uniform(1, 3) for _ in range(trials)]
    ladder = scheduler.ladder(288, 8)
    standings = run_all(scheduler, losses, ladder)
    complete = [s.trial.number for s in standings if s.state == "complete"]
    assert len(standings) == trials
    assert 0 in complete
    # Losses keep their order over the rungs here, so the best of all must have come through.
    assert trials == 1 or min(range(1, trials), key=losses.__getitem__) in complete


def test_top_k_takes_exactly_k_to_the_end() -> None:
    losses = [9.0, *(1 + i / 10 for i in range(19))]
    standings = run_all(TopK(k=3, first_share=0.25), losses, (72, 288))
    assert [s.trial.number for s in standings if s.state == "complete"] == [0, 1, 2, 3]


def test_nothing_is_decided_while_a_trial_that_may_change_it_runs() -> None:
    out = Standings([DONE_DEFAULTS, standing(1, {}, "running")])
    for scheduler in (Asha(eta=3, rungs=3), TopK(k=1, first_share=0.25), Full()):
        assert scheduler.next(out, (32, 96, 288), may_start=False) == "wait"


@pytest.mark.parametrize("trials", [12, 64])
def test_the_expected_examples_are_near_those_of_random_draws(trials: int) -> None:
    asha = Asha(eta=3, rungs=3)
    ladder = asha.ladder(288, 8)
    trained = []
    for seed in range(20):
        losses = [random.Random(seed * 1000 + i).random() for i in range(trials)]
        trained.append(sum(max(s.values) for s in run_all(asha, losses, ladder)))
    assert asha.examples(ladder, trials) == pytest.approx(sum(trained) / 20, rel=0.2)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="eta >= 2"):
        Asha(eta=1, rungs=3)
    with pytest.raises(ValueError, match="first_share"):
        TopK(k=1, first_share=1.5)
    with pytest.raises(ValueError, match="rungs >= 1"):
        Pruned(eta=3, rungs=0, pruner=None)  # type: ignore[arg-type]
