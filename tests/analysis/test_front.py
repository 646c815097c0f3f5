"""The front is the one that Optuna and brute force find; its knee is where geometry says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from sweep.analysis.front import front_of, knee_of, non_dominated, winner_of
from sweep.analysis.trades import BEATEN, FRONT, KNEE, UNFIT, trades
from sweep.types import Aimed, Standing, Verdict
from tests.studies import standing

BEYOND = Verdict(check="verbatim", passed=False, severity="error", value=0.4, limit=0.2, message="recites")


def aimed(
    number: int, *values: float, higher: tuple[bool, ...] = (True, True, True), violation: float = 0.0
) -> Standing:
    aims = tuple(
        Aimed(f"aim{at}", value, "points", up)
        for at, (value, up) in enumerate(zip(values, higher, strict=False))
    )
    done = standing(number, {288: 2.0 - 0.01 * number}, "complete")
    return replace(done, aims=aims, violation=violation, verdicts=(BEYOND,) if violation else ())


def beaten(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(b >= a for a, b in zip(one, other, strict=True)) and one != other


@pytest.mark.parametrize("aims", [2, 3, 4])
def test_the_front_is_what_brute_force_finds_ties_and_equals_included(aims: int) -> None:
    random = np.random.default_rng(aims)
    for _ in range(50):
        points = [tuple(map(float, row)) for row in random.integers(0, 5, (25, aims))]
        expected = [not any(beaten(one, other) for other in points) for one in points]
        assert non_dominated(np.array(points)).tolist() == expected


@pytest.mark.parametrize("higher", list(product([True, False], repeat=2)))
def test_the_front_is_the_one_that_optuna_finds_directions_and_constraints_included(
    higher: tuple[bool, bool],
) -> None:
    random = np.random.default_rng(7)
    found = []
    for _ in range(5):
        study = optuna.create_study(directions=["maximize" if up else "minimize" for up in higher])
        standings = []
        for number in range(40):
            values = [float(value) for value in random.integers(0, 30, 2)]
            violation = float(random.random() < 0.3)
            trial = create_trial(state=TrialState.COMPLETE, values=values)
            trial.set_constraint("guards", violation)
            study.add_trial(trial)
            standings.append(aimed(number, *values, higher=higher, violation=violation))
        best = {trial.number for trial in study.best_trials}
        assert {one.trial.number for one in front_of(standings)} == best
        found.append(len(best))
    assert max(found) > 2


def quadrant(count: int) -> np.ndarray:
    angles = np.linspace(0, math.pi / 2, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_knee_of_a_quarter_circle_is_its_middle_in_any_units() -> None:
    circle = quadrant(21)
    assert knee_of(circle) == 10
    assert knee_of(circle * [4.0, 3000.0] + [-7.0, 100.0]) == 10
    # Another curve whose farthest point from the chord is known: y = 1 - x ** 3 at x = sqrt(1/3).
    x = np.linspace(0, 1, 1001)
    assert x[knee_of(np.stack([x, 1 - x**3], axis=1))] == pytest.approx(math.sqrt(1 / 3), abs=1e-3)


def test_the_knee_of_an_octant_of_a_sphere_is_its_middle() -> None:
    points = np.array([p for p in product(range(13), repeat=3) if math.gcd(*p) == 1], dtype=float)
    sphere = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert non_dominated(sphere).all()
    assert sphere[knee_of(sphere)] == pytest.approx([1 / math.sqrt(3)] * 3)


def test_the_knee_lies_farthest_from_the_chord_as_distances_to_a_line_say() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        points = random.random((40, 2))
        front = points[non_dominated(points)]
        if len(front) < 3:
            continue
        low, high = front.min(axis=0), front.max(axis=0)
        start, end = sorted(((front - low) / (high - low)).tolist())[:: len(front) - 1]
        chord = np.subtract(end, start)
        off = [float(np.linalg.det([chord, p - np.array(start)])) for p in (front - low) / (high - low)]
        assert off[knee_of(front)] == pytest.approx(max(off))


def test_where_one_point_is_best_in_two_aims_the_knee_is_nearest_to_the_best_of_all() -> None:
    points = np.array([[1.0, 1.0, 0.0], [0.0, 0.2, 1.0], [0.6, 0.7, 0.8], [0.9, 0.1, 0.7]])
    assert non_dominated(points).all()
    ideal = np.linalg.norm(1 - points / [1.0, 1.0, 1.0], axis=1)
    scaled = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    assert knee_of(points) == np.argmin(np.linalg.norm(1 - scaled, axis=1)) == np.argmin(ideal) == 2


def test_small_and_straight_fronts_fall_to_the_first_aim() -> None:
    assert knee_of(np.array([[1.0, 2.0]])) == 0
    assert knee_of(np.array([[1.0, 2.0], [2.0, 1.0]])) == 1
    assert knee_of(np.array([[1.0, 2.0], [1.0, 2.0]])) == 0
    # An aim in which all are alike has no range.
    assert knee_of(np.array([[1.0, 5.0, 2.0], [1.5, 5.0, 1.9], [2.0, 5.0, 0.0]])) == 1
    line = np.linspace(0, 1, 7)
    assert knee_of(np.stack([line, 1 - line], axis=1)) == 6
    # Nothing bulges: the ends are the farthest towards better.
    assert knee_of(np.stack([line, (1 - line) ** 2], axis=1)) == 6


def test_the_knee_leads_then_the_front_by_the_first_aim() -> None:
    corner = [
        aimed(1, 0.0, 1.0),
        aimed(2, 0.9, 0.8),
        aimed(3, 1.0, 0.0),
        aimed(4, 0.3, 0.9),
        aimed(5, 0.2, 0.2),
    ]
    front = front_of(corner)
    assert [one.trial.number for one in front] == [2, 3, 4, 1]
    assert winner_of(corner) is front[0]
    twin = aimed(6, 0.9, 0.8)
    assert twin.loss < corner[1].loss
    assert [one.trial.number for one in front_of([*corner, twin])] == [6, 3, 2, 4, 1]
    assert winner_of(list(reversed(corner))) is front[0]


def test_with_one_aim_the_lowest_loss_leads_among_those_that_may_win() -> None:
    plain = [replace(aimed(number), violation=float(number > 3)) for number in range(6)]
    assert front_of(plain) == ()
    assert winner_of(plain) is plain[3], "losses fall with the number, 4 and 5 fail"
    assert winner_of(plain[4:]) is plain[5]
    assert winner_of([]) is None
    assert winner_of([standing(0, {32: 1.0})]) is None


def test_who_fails_its_guards_leads_only_where_all_do() -> None:
    sound = [aimed(0, 0.1, 0.3), aimed(1, 0.3, 0.1)]
    unsound = [
        aimed(2, 9.0, 9.0, violation=0.5),
        aimed(3, 2.0, 2.0, violation=0.2),
        aimed(4, 1, 3, violation=0.2),
    ]
    assert {one.trial.number for one in front_of([*sound, *unsound])} == {0, 1}
    assert {one.trial.number for one in front_of(unsound)} == {3, 4}
    assert winner_of(unsound) is unsound[1]


def test_the_table_says_of_each_trial_what_it_is() -> None:
    given = [
        aimed(0, 0.2, 0.2),
        aimed(1, 0.0, 1.0),
        aimed(2, 0.8, 0.8),
        aimed(3, 1.0, 0.0),
        aimed(4, 2.0, 2.0, violation=1.0),
        standing(5, {288: 1.0}, "diverged"),
    ]
    table = trades(given, ["lora_rank"])
    assert list(table.columns) == ["trial", "role", "aim/aim0", "aim/aim1", "lora_rank"]
    assert list(zip(table["trial"], table["role"], strict=True)) == [
        (2, KNEE),
        (3, FRONT),
        (1, FRONT),
        (0, BEATEN),
        (4, UNFIT),
    ]
    assert table["aim/aim1"].tolist() == [0.8, 0.0, 1.0, 0.2, 2.0]
    assert trades([standing(0, {288: 1.0}, "complete")], ["lora_rank"]).empty
