"""Train and validation rows are dealt into folds: each row once, look-alikes together, intents alike."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from sweep.data.folds import Validation, pooled
from sweep.data.split import DataSet, split
from sweep.errors import ConfigError, DataError
from sweep.types import View
from tests.data.test_split import SHARES, WORDS, distinct, example


def cut(rows: int = 400, *, intents: int = 4) -> DataSet:
    return split(distinct(rows, intents=intents), SHARES, seed=0)


def with_look_alikes() -> DataSet:
    """Every third prompt is one of twelve, over and over."""
    chance = random.Random(3)
    rows = distinct(400)
    for i in range(0, 400, 3):
        prompt = f"{WORDS[chance.randrange(11)]} please tell me all about the parcel number {i}"
        rows[i] = example(f"id-{i}", prompt, rows[i].response)
    return split(rows, SHARES, seed=0)


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_each_row_of_both_splits_is_in_one_fold_and_no_other_row(folds: int) -> None:
    whole = cut()
    data = pooled(whole, folds=folds, seed=0)
    both = {row.id for name in ("train", "validation") for row in whole.examples[name]}  # type: ignore[index]
    assert data.folds.keys() == both
    assert {row.id for row in data.examples["train"]} == both
    assert set(data.folds.values()) == set(range(folds))
    assert "validation" not in data.examples
    for name in ("confirm", "test", "golden"):
        assert data.examples[name] == whole.examples[name]  # type: ignore[index]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_of_one_size_and_hold_every_intent_alike(folds: int) -> None:
    data = pooled(cut(), folds=folds, seed=0)
    sizes = Counter(data.folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 2
    for intent in {row.intent for row in data.examples["train"]}:
        held = Counter(data.folds[row.id] for row in data.examples["train"] if row.intent == intent)
        assert max(held.values()) - min(held[fold] for fold in range(folds)) <= 2


def test_look_alikes_never_span_folds() -> None:
    whole = with_look_alikes()
    groups = Counter(whole.groups[row.id] for row in whole.examples["train"])
    assert max(groups.values()) >= 5, "else nothing is shown"
    data = pooled(whole, folds=5, seed=0)
    folds_of: dict[int, set[int]] = {}
    for row, fold in data.folds.items():
        folds_of.setdefault(data.groups[row], set()).add(fold)
    assert all(len(folds) == 1 for folds in folds_of.values())


def test_a_fold_and_the_others_are_the_pool_in_its_order() -> None:
    data = pooled(cut(), folds=5, seed=0)
    pool = data.examples["train"]
    for fold in range(5):
        inside, outside = (data.places(View(name, fold=fold)) for name in ("validation", "train"))  # type: ignore[arg-type]
        assert sorted([*inside, *outside]) == list(range(len(pool)))
        assert {data.folds[pool[place].id] for place in inside} == {fold}
        assert list(inside) == sorted(inside)
        assert data.places(View("validation", 7, fold)) == inside[:7]
    assert list(data.places(View("train"))) == list(range(len(pool)))
    assert list(data.places(View("confirm", 3))) == [0, 1, 2]


def test_the_pool_keeps_the_order_of_its_splits() -> None:
    whole = cut()
    pool = [row.id for row in pooled(whole, folds=5, seed=0).examples["train"]]
    for name in ("train", "validation"):
        ids = [row.id for row in whole.examples[name]]  # type: ignore[index]
        assert [row for row in pool if row in set(ids)] == ids


def test_the_folds_follow_from_content_and_seed() -> None:
    rows = distinct(400, intents=4)
    first = pooled(split(rows, SHARES, seed=0), folds=5, seed=0)
    shuffled = pooled(split(rows[::-1], SHARES, seed=0), folds=5, seed=0)
    assert (shuffled.folds, shuffled.fingerprint) == (first.folds, first.fingerprint)
    other = pooled(split(rows, SHARES, seed=0), folds=5, seed=1)
    assert other.folds != first.folds
    fingerprints = {data.fingerprint for data in (first, other, pooled(cut(), folds=4, seed=0), cut())}
    assert len(fingerprints) == 4


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"validation\.folds=60: the 4\d .* leave a fold empty.*Lower"):
        pooled(cut(50), folds=60, seed=0)


def test_a_large_group_makes_uneven_folds_and_is_told() -> None:
    rows = distinct(200)
    same = [example(f"same-{i}", f"where is my parcel number {i} now", f"answer {i}") for i in range(200)]
    whole = split(rows + same, SHARES, seed=0)
    data = pooled(whole, folds=5, seed=0)
    assert len(data.notes) == len(whole.notes) + 1
    assert "look-alike rows stay together" in data.notes[-1]


@pytest.mark.parametrize("folds", [-1, 0, 1])
def test_fewer_than_two_folds_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=r"validation\.folds"):
        Validation(folds=folds)


def test_the_test_rows_are_known_again_in_the_pool_and_edited_ones_are_not() -> None:
    whole = cut()
    data = pooled(whole, folds=5, seed=0)
    assert data.fingerprint != whole.fingerprint
    assert data.content_of("test") == whole.content_of("test") != whole.content_of("confirm")
    shorter = replace(whole, examples={**whole.examples, "test": whole.examples["test"][1:]})
    assert shorter.content_of("test") != whole.content_of("test")
