"""How long production trains: as long as the search did, on other rows in proportion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.errors import ConfigError
from sweep.search.length import Length, length_of
from sweep.search.space import Space
from tests.recipes import DEFAULTS
from tests.studies import PLAN


@given(
    rows=st.integers(1, 5000),
    epochs=st.floats(0.01, 5),
    batches=st.lists(st.sampled_from([1, 2, 4, 8, 12, 32]), min_size=2, max_size=4, unique=True),
    rung=st.integers(1, 40),
)
def test_on_the_rows_of_the_search_it_is_the_same_to_the_example(
    rows: int, epochs: float, batches: list[int], rung: int
) -> None:
    recipe = replace(DEFAULTS, epochs=epochs, batch_size=batches[0])
    space = Space.from_mapping({"batch_size": {"choices": sorted(batches)}})
    plan = replace(PLAN, space=space, defaults=recipe, train_rows=rows)
    horizon = plan.horizon(epochs)
    stop = min(horizon, rung * plan.unit)
    best = {"horizon": horizon, "stop": stop, "unit": plan.unit}
    assert length_of(recipe, best, rows=rows) == (horizon, stop)


def test_on_other_rows_and_over_other_epochs_it_stops_at_the_same_share() -> None:
    recipe = replace(DEFAULTS, epochs=1.0, batch_size=4)
    best = {"horizon": 960, "stop": 320, "unit": 32}
    assert length_of(recipe, best, rows=960) == (960, 320)
    assert length_of(recipe, best, rows=2880) == (2880, 960)
    assert length_of(replace(recipe, epochs=0.5), best, rows=960) == (480, 160)


def test_where_no_stop_is_told_the_schedule_ends_with_the_training() -> None:
    recipe = replace(DEFAULTS, epochs=0.25, batch_size=8)
    assert length_of(recipe, {}, rows=130) == Length(horizon=32, stop=32)
    assert length_of(recipe, {"horizon": 64, "study": "of an earlier version"}, rows=130) == (32, 32)
    assert length_of(replace(recipe, epochs=0.001), {}, rows=10) == (8, 8)


@pytest.mark.parametrize(
    ("best", "told"),
    [
        ({"horizon": 64, "stop": 65}, r"best\.stop: must be at most best\.horizon, 64; got 65"),
        ({"horizon": 64, "stop": 0}, r"best\.stop: must be at least 1, or null; got 0"),
        ({"horizon": "long", "stop": 3}, r"best\.horizon: .*whole number.*'long'"),
        ({"horizon": 64, "stop": 32, "unit": -1}, r"best\.unit: must be at least 1"),
    ],
)
def test_a_length_that_can_not_be_is_refused(best: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        length_of(DEFAULTS, best, rows=100)
