"""Few rows cap ranks and epochs, in the space and in the recipe alike, and people are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweep.errors import ConfigError
from sweep.search.caps import SmallData, capped, offer
from sweep.search.space import Space
from tests.recipes import DEFAULTS

SMALL = SmallData(rows=1000, rank_max=16, epochs_max=3.0)
LOG = {"low": 1e-4, "high": 1e-2, "log": True}


def cut(space: dict[str, Any], rows: int = 999, **recipe: Any) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What is left of the space, of the recipe, and how many notes there are."""
    whole = Space.from_mapping({"learning_rate": LOG, **space})
    defaults = replace(DEFAULTS, **recipe)
    found = capped(whole, defaults, train_rows=rows, small=SMALL)
    found.space.check(found.defaults)
    left = {name: form for name, form in found.space.to_mapping().items() if name != "learning_rate"}
    return left, {"lora_rank": found.defaults.lora_rank, "epochs": found.defaults.epochs}, len(found.notes)


def test_enough_rows_are_left_alone() -> None:
    space = {"lora_rank": {"choices": [4, 64]}}
    left, recipe, notes = cut(space, rows=1000, lora_rank=64, epochs=9.0)
    assert left["lora_rank"]["choices"] == [4, 64]
    assert (recipe, notes) == ({"lora_rank": 64, "epochs": 9.0}, 0)


def test_what_lies_within_is_left_alone() -> None:
    left, recipe, notes = cut({"lora_rank": {"choices": [4, 16]}}, lora_rank=4, epochs=3.0)
    assert left["lora_rank"]["choices"] == [4, 16]
    assert (recipe, notes) == ({"lora_rank": 4, "epochs": 3.0}, 0)


@pytest.mark.parametrize(
    ("form", "rank", "left", "becomes"),
    [
        ({"choices": [4, 8, 16, 32]}, 32, {"choices": [4, 8, 16]}, 16),
        ({"choices": [4, 8, 32]}, 32, {"choices": [4, 8]}, 8),
        ({"choices": [16, 32]}, 32, None, 16),
        ({"choices": [32, 64]}, 64, None, 32),
        ({"low": 2, "high": 64}, 32, {"low": 2, "high": 16}, 16),
        ({"low": 2, "high": 64}, 8, {"low": 2, "high": 16}, 8),
        ({"low": 32, "high": 64}, 40, None, 32),
    ],
)
def test_ranks_beyond_the_cap_are_not_searched(
    form: dict[str, Any], rank: int, left: dict[str, Any] | None, becomes: int
) -> None:
    found, recipe, notes = cut({"lora_rank": form}, lora_rank=rank)
    assert recipe["lora_rank"] == becomes
    assert notes == 1
    assert ("lora_rank" in found) == (left is not None)
    for key, value in (left or {}).items():
        assert found["lora_rank"][key] == value


def test_a_recipe_alone_is_capped_too() -> None:
    left, recipe, notes = cut({}, lora_rank=64, epochs=5.0)
    assert (left, recipe, notes) == ({}, {"lora_rank": 16, "epochs": 3.0}, 2)


def test_null_caps_nothing() -> None:
    space = Space.from_mapping({"lora_rank": {"choices": [4, 64]}})
    found = capped(space, DEFAULTS, train_rows=10, small=replace(SMALL, rows=None))
    assert (found.space, found.defaults, found.notes) == (space, DEFAULTS, ())


def test_few_rows_are_offered_a_cross_validation_beside_the_study() -> None:
    (offered,) = offer("mine", train_rows=999, small=SMALL)
    assert "999 train rows are few: validation=kfold scheduler=wilcoxon name=mine_kfold " in offered
    assert offer("mine", train_rows=1000, small=SMALL) == ()
    assert offer("mine", train_rows=10, small=replace(SMALL, rows=None)) == ()


@pytest.mark.parametrize("key", ["rows", "rank_max", "epochs_max"])
def test_what_can_not_be_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"small_data\.{key}"):
        replace(SMALL, **{key: 0})
