"""The audit finds what is wrong with rows that were spoilt in one way, and nothing in those that were not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from sweep.data.audit.audit import Audit, audit
from sweep.data.audit.coverage import edge_cases, intents, smallest_intent
from sweep.data.audit.diversity import compression, distinct_pairs, openings, styles, vendi
from sweep.data.audit.finding import Audited, Finding, audited_of, judge
from sweep.data.audit.labels import mislabelled
from sweep.data.audit.privacy import personal_data
from sweep.data.audit.repeats import (
    SIMILARITY,
    conflicts,
    distinct_answers,
    enough_rows,
    exact_repeats,
    leaks,
    look_alikes,
    near_repeats,
)
from sweep.data.audit.truncation import truncated
from sweep.data.example import Example, Message
from sweep.data.split import near_identical, normalised
from sweep.engines.byte_tokenizer import byte_tokenizer
from sweep.errors import DataError
from sweep.schema import build
from sweep.types import Limit, Split

ROOT = Path(__file__).parents[2]
ASKED = build(Audit, yaml.safe_load((ROOT / "conf/audit/standard.yaml").read_text()), "audit")
LIMITS = ASKED.limits
MAX_TOKENS = 1200
SUBJECTS = ("refund", "delivery", "invoice", "account", "warranty")
SYLLABLES = ("ba", "de", "ki", "lo", "mu", "ra", "ter", "vi", "son", "pel")
WORDS = [f"{a}{b}{c}" for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def row(number: int, prompt: str, answer: str, intent: str | None = "refund") -> Example:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    return Example(id=f"{number:05}", messages=turns, intent=intent, required=(), forbidden=(), slices={})


def sound_rows(count: int) -> list[Example]:
    """Different questions and answers about five subjects, a twentieth of them of each awkward kind."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        subject = SUBJECTS[number % len(SUBJECTS)]
        text = " ".join(draw.choices(WORDS, k=draw.randint(8, 14)))
        drop = 1 + number // 100 % (len(subject) - 3)
        kinds = {
            0: f"{subject} {draw.choice(WORDS)}{number}",
            1: f"This is ridiculous!! {subject} {text}",
            2: f"{subject} {text}? and also {draw.choice(WORDS)} {text}?",
            3: " ".join([subject, text, *draw.choices(WORDS, k=60)]),
            4: f"My {subject[:drop]}{subject[drop + 1 :]} {text}",
        }
        prompt = kinds.get(number // 5 % 20, f"My {subject} {text}?")
        intent = "out_of_scope" if number // 5 % 20 == 5 else subject
        found.append(row(number, prompt, " ".join(draw.choices(WORDS, k=25)), intent))
    return found


def splits_of(examples: Sequence[Example]) -> dict[str, Split]:
    return {e.id: "validation" if i % 5 == 0 else "train" for i, e in enumerate(examples)}


SOUND = sound_rows(2500)


def test_sound_rows_pass_every_check() -> None:
    findings = audit(
        SOUND, splits_of(SOUND), LIMITS, tokenizer=byte_tokenizer(), max_tokens=MAX_TOKENS, seed=0
    )
    assert {f.verdict.check for f in findings if not f.verdict.passed} == set()
    assert len(findings) == len({f.verdict.check for f in findings}) == 17


class Spoilt(NamedTuple):
    """Rows that fail a check, how badly, and the check."""

    rows: list[Example]
    severity: str
    found: Callable[[list[Example]], Finding]


def asked(prompt: Callable[[int, Example], str]) -> list[Example]:
    return [row(i, prompt(i, e), e.response, e.intent) for i, e in enumerate(SOUND)]


def answered(answer: Callable[[int, Example], str]) -> list[Example]:
    return [row(i, e.prompt, answer(i, e), e.intent) for i, e in enumerate(SOUND)]


def repeated(count: int) -> list[Example]:
    return SOUND + [replace(e, id=f"again-{e.id}") for e in SOUND[:count]]


FEW_ANSWERS = answered(lambda i, e: SOUND[i % 20].response)
SPOILT: Mapping[str, Spoilt] = {
    "few rows": Spoilt(SOUND[:1000], "warn", lambda r: enough_rows(r, LIMITS.rows)),
    "very few rows": Spoilt(SOUND[:400], "error", lambda r: enough_rows(r, LIMITS.rows)),
    "repeats": Spoilt(repeated(300), "warn", lambda r: exact_repeats(r, LIMITS.exact_duplicates)),
    "near repeats": Spoilt(
        [*SOUND, *(row(90000 + i, e.prompt + " x", e.response) for i, e in enumerate(SOUND[:1500]))],
        "error",
        lambda r: near_repeats(r, look_alikes(r), LIMITS.near_duplicates),
    ),
    "leaks": Spoilt(
        [*SOUND, replace(SOUND[1], id="x")],
        "warn",
        lambda r: leaks(r, {**splits_of(r), "x": "test"}, look_alikes(r), LIMITS.leaks),
    ),
    "few answers": Spoilt(FEW_ANSWERS, "error", lambda r: distinct_answers(r, LIMITS.distinct_answers)),
    "answers alike": Spoilt(FEW_ANSWERS, "error", lambda r: vendi(r, LIMITS.vendi, seed=0)),
    "answers repeat": Spoilt(FEW_ANSWERS, "error", lambda r: compression(r, LIMITS.compression, seed=0)),
    "pairs repeat": Spoilt(FEW_ANSWERS, "error", lambda r: distinct_pairs(r, LIMITS.distinct_pairs, seed=0)),
    "one opening": Spoilt(
        answered(lambda i, e: f"Thank you for {e.response}" if i % 3 else e.response),
        "error",
        lambda r: openings(r, LIMITS.openings),
    ),
    "formal only": Spoilt(
        asked(lambda i, e: f"Dear Sir, {e.prompt}."), "warn", lambda r: styles(r, LIMITS.style)
    ),
    "one intent": Spoilt(
        [replace(e, intent="refund") for e in SOUND], "error", lambda r: intents(r, LIMITS.intents)
    ),
    "one intent has most": Spoilt(
        [replace(e, intent=e.intent if i % 3 == 0 else "refund") for i, e in enumerate(SOUND)],
        "warn",
        lambda r: intents(r, LIMITS.intents),
    ),
    "a rare intent": Spoilt(
        [replace(e, intent="rare") if i < 5 else e for i, e in enumerate(SOUND)],
        "error",
        lambda r: smallest_intent(r, LIMITS.intent_rows),
    ),
    "no awkward case": Spoilt(
        [row(i, f"My parcel {w} {WORDS[-i]} {WORDS[i * 7 % 999]}", "x") for i, w in enumerate(WORDS)],
        "error",
        lambda r: edge_cases(r, LIMITS.edge_cases),
    ),
    "nobody is angry": Spoilt(
        [e for e in SOUND if "!!" not in e.prompt], "warn", lambda r: edge_cases(r, LIMITS.edge_cases)
    ),
    "an address": Spoilt(
        answered(lambda i, e: f"{e.response} write to jo{i}@shop.com" if i < 20 else e.response),
        "warn",
        lambda r: personal_data(r, LIMITS.personal_data),
    ),
    "wrong labels": Spoilt(
        [replace(e, intent=SUBJECTS[(i + 1) % 5] if i % 4 == 0 else e.intent) for i, e in enumerate(SOUND)],
        "error",
        lambda r: mislabelled(r, LIMITS.labels, seed=0),
    ),
    "other numbers": Spoilt(
        [row(i, SOUND[i % 2000].prompt, f"{e.response} {i}", "refund") for i, e in enumerate(SOUND)],
        "error",
        lambda r: conflicts(r, LIMITS.conflicting_answers),
    ),
    "too long": Spoilt(
        answered(lambda i, e: e.response * 8 if i % 10 == 0 else e.response),
        "warn",
        lambda r: truncated(r, byte_tokenizer(), max_tokens=MAX_TOKENS, limit=LIMITS.truncated),
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_it_finds_what_was_spoilt(how: str) -> None:
    rows, severity, check = SPOILT[how]
    finding = check(rows)
    assert (finding.verdict.passed, finding.verdict.severity) == (False, severity), finding.verdict.message
    assert finding.mend


def test_it_says_how_many_labels_are_wrong() -> None:
    wrong = [replace(e, intent="out_of_scope") if i % 10 == 1 else e for i, e in enumerate(SOUND)]
    share = mislabelled(wrong, LIMITS.labels, seed=0).verdict.value
    assert share == pytest.approx(0.1, abs=0.03)


def test_too_few_rows_of_an_intent_are_not_judged() -> None:
    assert "not checked" in mislabelled(SOUND[:60], LIMITS.labels, seed=0).verdict.message


def test_other_words_to_the_same_effect_are_no_conflict() -> None:
    twice = [row(i, SOUND[i % 1250].prompt, f"{e.response} 14 days", "refund") for i, e in enumerate(SOUND)]
    assert conflicts(twice, LIMITS.conflicting_answers).verdict.value == 0
    facts = [replace(e, required=("14 days",) if i % 2 else ("30 days",)) for i, e in enumerate(twice)]
    assert conflicts(facts, LIMITS.conflicting_answers).verdict.value == 0
    facts = [replace(e, required=("14 days",) if i < 1250 else ("30 days",)) for i, e in enumerate(twice)]
    assert conflicts(facts, LIMITS.conflicting_answers).verdict.value == 1


def test_look_alikes_are_those_that_an_exact_comparison_finds() -> None:
    draw = random.Random(1)
    changed = []
    for number, example in enumerate(SOUND[:300]):
        words = example.response.split()
        for _ in range(number % 12):
            words[draw.randrange(len(words))] = "other"
        changed.append(row(90000 + number, example.prompt, " ".join(words)))
    examples = SOUND[:300] + changed
    exact = near_identical([normalised(f"{e.prompt}\n{e.response}") for e in examples], SIMILARITY)
    proposed = look_alikes(examples)
    alike = [exact[i] == exact[i + 300] for i in range(300)]
    found = [proposed[i] == proposed[i + 300] for i in range(300)]
    assert 50 < sum(alike) < 290
    assert not any(pair and not really for pair, really in zip(found, alike, strict=True))
    assert sum(found) >= 0.98 * sum(alike)


def test_rows_of_one_template_are_alike_only_where_they_are_nearly_the_same() -> None:
    draw = random.Random(3)
    facts = [[draw.choice(WORDS) for _ in range(9)] for _ in range(400)]
    # Every fourth repeats an earlier one but for its last fact.
    facts = [facts[i - 1][:8] + facts[i][8:] if i % 4 == 3 else facts[i] for i in range(400)]
    rows = [
        row(
            number,
            "where is my {} of the {} that {} sent to {}".format(*told),
            "your {} left {} and comes by {} to {} or {}".format(*told[4:]),
        )
        for number, told in enumerate(facts)
    ]
    exact = near_identical([normalised(f"{e.prompt}\n{e.response}") for e in rows], SIMILARITY).tolist()
    together = [(i, j) for i in range(400) for j in range(i) if exact[i] == exact[j]]
    assert 60 < len(together) < 140
    groups = look_alikes(rows).tolist()
    found = [(i, j) for i in range(400) for j in range(i) if groups[i] == groups[j]]
    assert set(found) <= set(together)
    assert len(found) >= 0.98 * len(together)


def test_each_row_is_looked_at_for_what_is_cut() -> None:
    long = [row(number, "question", "word " * 300) for number in (0, 999, 1000, 2499)]
    short = [row(number, "question", "answer") for number in range(2500)]
    rows = [{e.id: e for e in long}.get(e.id, e) for e in short]
    found = truncated(rows, byte_tokenizer(), max_tokens=MAX_TOKENS, limit=LIMITS.truncated)
    assert found.verdict.value == pytest.approx(4 / 2500)


def test_the_vendi_score_is_the_number_of_different_answers() -> None:
    unlike = [row(i, "", f"word{i % 10}") for i in range(100)]
    score = vendi(unlike, Limit(warn=0.0, error=None), seed=0).verdict.value
    assert score * 100 == pytest.approx(10)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("write to jane.doe@shop.co.uk", True),
        ("write to help@example.com", False),
        ("my card 4111 1111 1111 1111", True),
        ("amex 378282246310005 please", True),
        ("order 4111 1111 1111 1112", False),
        ("order number 113542617735902", False),
        ("my number is 536-22-1234", True),
        ("call 000-22-1234", False),
        ("from 192.168.10.25", True),
        ("version 1.2.3.4.5", False),
        ("at 300.1.1.1", False),
    ],
)
def test_personal_data(text: str, holds: bool) -> None:
    finding = personal_data([row(0, text, "yes")], LIMITS.personal_data)
    assert finding.verdict.passed is not holds
    assert all(text not in shown.text for shown in finding.rows)


def test_the_worse_limit_decides() -> None:
    limit = Limit(warn=0.5, error=0.1)
    found = [judge("x", v, limit, worse="below", message="", mend="do") for v in (0.6, 0.3, 0.05)]
    assert [(f.verdict.passed, f.verdict.severity, f.bound) for f in found] == [
        (True, "warn", "at least 50%"),
        (False, "warn", "at least 50%"),
        (False, "error", "at least 10%"),
    ]


def test_the_order_of_rows_changes_nothing() -> None:
    few = SOUND[:600]
    shuffled = [few[i] for i in np.random.default_rng(0).permutation(len(few))]
    first, second = (
        audit(
            rows,
            {e.id: "train" for e in rows},
            LIMITS,
            tokenizer=byte_tokenizer(),
            max_tokens=MAX_TOKENS,
            seed=0,
        )
        for rows in (few, shuffled)
    )
    assert first == second


def test_what_is_kept_reads_as_it_was() -> None:
    audited = Audited(
        findings=(enough_rows(SOUND[:400], LIMITS.rows), styles(SOUND, LIMITS.style)), allowed=("rows",)
    )
    assert audited_of(audited.as_json()) == audited


def test_an_allowed_check_stops_nothing() -> None:
    findings = (enough_rows(SOUND[:400], LIMITS.rows), openings(SPOILT["one opening"].rows, LIMITS.openings))
    assert [f.verdict.check for f in Audited(findings=findings, allowed=("rows",)).stopping] == ["openings"]
    assert Audited(findings=findings, allowed=("rows", "openings")).stopping == []


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(DataError, match=r"audit\.allow: 'vendy' is no check"):
        replace(ASKED, allow=("vendy",))
