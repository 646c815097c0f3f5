from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweep.data.example import Example, Message
from sweep.data.source import SplitShares
from sweep.data.split import MIN_ROWS, DataSet, near_identical, normalised, split
from sweep.errors import DataError
from sweep.types import SPLITS

SHARES = SplitShares(train=0.7, validation=0.1, confirm=0.08, test=0.08, golden=0.04, group_similarity=0.8)
WORDS = (
    "order",
    "parcel",
    "refund",
    "invoice",
    "address",
    "login",
    "card",
    "delivery",
    "shop",
    "return",
    "late",
)


def example(
    name: str, prompt: str, response: str, *, intent: str | None = None, system: str | None = None
) -> Example:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=response))
    if system is not None:
        turns = (Message(role="system", content=system), *turns)
    return Example(id=name, messages=turns, intent=intent, required=(), forbidden=(), slices={})


def distinct(rows: int, *, intents: int = 1, seed: int = 0) -> list[Example]:
    chance = random.Random(seed)
    return [
        example(
            f"id-{i}",
            " ".join(chance.choices(WORDS, k=12)),
            " ".join(chance.choices(WORDS, k=12)),
            intent=f"intent-{i % intents}",
        )
        for i in range(rows)
    ]


def split_of(data: DataSet) -> dict[str, str]:
    return {row.id: name for name in SPLITS for row in data.examples[name]}


def by_pairs(texts: Sequence[str], similarity: float) -> set[frozenset[int]]:
    """Groups found by comparing every pair with Python's own sets."""
    pieces = [{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in texts]
    groups = [{i} for i in range(len(texts))]
    for i, first in enumerate(pieces):
        for j, second in enumerate(pieces[:i]):
            if len(first & second) / len(first | second) >= similarity and groups[i] is not groups[j]:
                groups[i] |= groups[j]
                for member in groups[j]:
                    groups[member] = groups[i]
    return {frozenset(group) for group in groups}


def as_sets(labels: Sequence[int]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(np.array(labels) == label).tolist()) for label in set(labels)}


# Groups


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("boilerplate", [0, 8])
def test_groups_are_those_of_comparing_every_pair(
    similarity: float, boilerplate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small blocks, so that every way through them is taken.
    monkeypatch.setattr("sweep.data.split.CANDIDATES_AT_ONCE", 2000)
    monkeypatch.setattr("sweep.data.split.PIECES_AT_ONCE", 300)
    chance = random.Random(1)
    texts = ["", "a", "abcd", "abcde"]
    while len(texts) < 200:
        words = chance.choices(WORDS, k=chance.randint(1, 10))
        for _ in range(chance.randint(1, 4)):
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            texts.append(" ".join([*WORDS[:boilerplate], *words]))
    expected = by_pairs(texts, similarity)
    assert as_sets(near_identical(texts, similarity).tolist()) == expected
    assert 1 < len(expected) < len(set(texts)) or similarity == 1.0 or boilerplate


def test_case_blanks_and_numbers_do_not_tell_prompts_apart() -> None:
    assert normalised("  Where is\n ORDER 4711? ") == normalised("where is order 8?")


def test_ten_thousand_rows_that_share_half_their_text_stay_cheap() -> None:
    # Comparing every pair would hold 50 million overlaps.
    chance = random.Random(2)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(2000)]
    texts = [" ".join([*words[:10], *chance.choices(words, k=10)]) for _ in range(10_000)]
    assert len(set(near_identical(texts, 0.8).tolist())) == 10_000


def test_rows_with_the_same_answer_stay_together() -> None:
    rows = distinct(300)
    rows[10:14] = [replace(row, messages=(row.messages[0], rows[10].messages[1])) for row in rows[10:14]]
    data = split(rows, SHARES, seed=0)
    assert len({data.groups[row.id] for row in rows[10:14]}) == 1
    assert len(set(data.groups.values())) == 297
    assert data.notes == ()


def test_a_few_answers_for_many_rows_give_way_to_the_shares_and_a_note_says_so() -> None:
    rows = [
        replace(row, messages=(row.messages[0], Message(role="assistant", content=WORDS[i % 11])))
        for i, row in enumerate(distinct(600, intents=11))
    ]
    data = split(rows, SHARES, seed=0)
    assert [len(data.examples[name]) for name in SPLITS] == pytest.approx([420, 60, 48, 48, 24], abs=3)
    (note,) = data.notes
    assert "600 rows share 11 distinct answers, one of them 55 times" in note
    assert "only near-identical prompts were kept together" in note


def test_a_group_too_large_for_the_shares_stays_together_and_a_note_says_so() -> None:
    rows = distinct(60)
    alike = [example(f"alike-{i}", f"Where is my order {i}?", "yes " * (i + 1)) for i in range(200)]
    data = split([*rows, *alike], SHARES, seed=0)
    assert {split_of(data)[row.id] for row in alike} == {"train"}
    (note,) = data.notes
    assert f"train {len(data.examples['train'])}, validation" in note
    assert "up to 200 look-alike rows" in note
    assert "data.split.group_similarity=0.8" in note


# Dealing


rows_of_a_data_set = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 400), st.sampled_from(["a", "b", "c", None])),
    min_size=MIN_ROWS + 50,
    max_size=250,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=rows_of_a_data_set, seed=st.integers(0, 1000), shuffle=st.randoms(use_true_random=False))
def test_any_cut_keeps_its_promises(
    rows: list[tuple[int, int, str | None]], seed: int, shuffle: random.Random
) -> None:
    prompts, answers = distinct(201, seed=3), distinct(401, seed=4)
    examples = [
        example(f"id-{i}", prompts[prompt].prompt, answers[answer].response, intent=intent)
        for i, (prompt, answer, intent) in enumerate(rows)
    ]
    try:
        data = split(examples, SHARES, seed=seed)
    except DataError:
        assume(False)

    # Every row in one split, every group in one split, the same prompt in one group.
    places = split_of(data)
    assert sorted(places) == sorted(row.id for row in examples)
    assert sum(len(data.examples[name]) for name in SPLITS) == len(examples)
    assert len({(data.groups[name], places[name]) for name in places}) == len(set(data.groups.values()))
    assert len({(row.prompt, data.groups[row.id]) for row in examples}) == len(
        {row.prompt for row in examples}
    )
    if not any("distinct answers" in note for note in data.notes):
        pairs = {(row.response, data.groups[row.id]) for row in examples}
        assert len(pairs) == len({row.response for row in examples})

    # The shares hold but for the largest group, or a note says that they don't.
    largest = max(Counter(data.groups.values()).values())
    if not any("far from their shares" in note for note in data.notes):
        for name in SPLITS:
            wanted = getattr(SHARES, name) * len(examples)
            assert len(data.examples[name]) == pytest.approx(wanted, abs=0.05 * len(examples) + largest)

    # Nothing depends on the order in the file.
    shuffled = list(examples)
    shuffle.shuffle(shuffled)
    assert split(shuffled, SHARES, seed=seed) == data


def test_shares_hold_within_every_intent() -> None:
    data = split(distinct(1000, intents=20), SHARES, seed=0)
    assert [len(data.examples[name]) for name in SPLITS] == pytest.approx([700, 100, 80, 80, 40], abs=2)
    for name in SPLITS:
        counts = Counter(row.intent for row in data.examples[name])
        for intent in {f"intent-{i}" for i in range(20)}:
            assert counts[intent] == pytest.approx(getattr(SHARES, name) * 50, abs=1)


def test_small_splits_draw_on_many_intents_even_where_each_is_rare() -> None:
    data = split(distinct(1000, intents=200), SHARES, seed=0)
    assert len(data.examples["golden"]) == pytest.approx(40, abs=2)
    assert len({row.intent for row in data.examples["golden"]}) > 30


def test_rows_without_intents_are_dealt_too() -> None:
    data = split([replace(row, intent=None) for row in distinct(MIN_ROWS)], SHARES, seed=0)
    assert [len(data.examples[name]) for name in SPLITS] == pytest.approx([35, 5, 4, 4, 2], abs=1)


def test_the_seed_deals_anew() -> None:
    rows = distinct(200)
    first, second = split(rows, SHARES, seed=0), split(rows, SHARES, seed=1)
    assert split_of(first) != split_of(second)
    assert first.fingerprint != second.fingerprint


def test_the_first_rows_of_a_split_are_a_sample_of_it() -> None:
    rows = distinct(2000, intents=4)
    front = split(rows, SHARES, seed=0).examples["train"][:400]
    counts = Counter(row.intent for row in front)
    assert all(70 < count < 130 for count in counts.values())
    numbers = [int(row.id.removeprefix("id-")) for row in front]
    assert 900 < sum(numbers) / len(numbers) < 1100


def test_an_edited_system_prompt_changes_the_fingerprint_but_not_the_cut() -> None:
    rows = distinct(100)
    told = [
        replace(row, messages=(Message(role="system", content="Be kind."), *row.messages)) for row in rows
    ]
    assert split_of(split(rows, SHARES, seed=0)) == split_of(split(told, SHARES, seed=0))
    assert split(rows, SHARES, seed=0).fingerprint != split(told, SHARES, seed=0).fingerprint


@pytest.mark.parametrize(
    "change", [{"intent": "other"}, {"required": ("phrase",)}, {"slices": {"channel": "chat"}}]
)
def test_any_content_changes_the_fingerprint(change: dict[str, object]) -> None:
    rows = distinct(100)
    changed = [replace(rows[0], **change), *rows[1:]]  # type: ignore[arg-type]
    fingerprint = split(rows, SHARES, seed=0).fingerprint
    assert len(fingerprint) == 16
    assert int(fingerprint, 16) >= 0
    assert split(changed, SHARES, seed=0).fingerprint != fingerprint


# Refusals


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"there are 49 rows; at least 50 .* Add rows"):
        split(distinct(MIN_ROWS - 1), SHARES, seed=0)


def test_an_empty_split_is_refused_with_the_ways_out() -> None:
    rows = [example(f"id-{i}", f"Where is order {i}?", f"On its way, number {i}.") for i in range(80)]
    with pytest.raises(DataError, match=r"80 rows form 1 groups .* largest of 80") as caught:
        split(rows, SHARES, seed=0)
    assert "train 80, validation 0" in str(caught.value)
    assert "data.split.group_similarity=0.8" in str(caught.value)
