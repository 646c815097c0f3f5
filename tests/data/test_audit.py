"""The audit finds what is wrong with rows that were spoilt in one way, and nothing in those that were not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from sweep.data.audit.audit import Audit, audit
from sweep.data.audit.diversity import vendi
from sweep.data.audit.finding import Finding, Limit, judge
from sweep.data.audit.privacy import personal_data
from sweep.data.audit.repeats import SIMILARITY, look_alikes
from sweep.data.example import Example, Message
from sweep.data.split import near_identical, normalised
from sweep.errors import DataError
from sweep.schema import build

ROOT = Path(__file__).parents[2]
ASKED = build(Audit, yaml.safe_load((ROOT / "conf/audit/standard.yaml").read_text()), "audit")
SUBJECTS = ("refund", "delivery", "invoice", "account", "warranty")
WORDS = [
    f"{a}{b}{c}"
    for a in ("ba", "de", "ki", "lo", "mu", "ra")
    for b in ("no", "ter", "vi")
    for c in ("n", "s", "la")
]


def row(number: int, prompt: str, answer: str, intent: str | None = "refund") -> Example:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    return Example(id=f"{number:05}", messages=turns, intent=intent, required=(), forbidden=(), slices={})


def rows(count: int = 2500) -> list[Example]:
    """Different questions and answers about five subjects, some of them awkward."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        subject = SUBJECTS[number % len(SUBJECTS)]
        text = " ".join(draw.choices(WORDS, k=draw.randint(8, 14)))
        prompt = f"{subject} {text}" if number % 3 else f"My {subject} {text}?"
        if number % 20 == 0:
            prompt = f"{subject} {draw.choice(WORDS)}{number}"
        if number % 20 == 1:
            prompt = f"This is ridiculous!! {prompt}"
        if number % 20 == 2:
            prompt = f"{prompt}? and also {draw.choice(WORDS)} {text}?"
        if number % 20 == 3:
            prompt = " ".join([prompt, *draw.choices(WORDS, k=60)])
        if number % 20 == 4:
            prompt = (
                prompt.replace("delivery", "delivry")
                .replace("account", "acount")
                .replace("invoice", "invoce")
            )
        intent = "out_of_scope" if number % 20 == 5 else subject
        found.append(row(number, prompt, " ".join(draw.choices(WORDS, k=25)) + f" {subject}", intent))
    return found


SOUND = rows()


def found(examples: Sequence[Example], **splits: str) -> dict[str, Finding]:
    held_out = {e.id: "validation" if i % 5 == 0 else "train" for i, e in enumerate(examples)}
    return {f.verdict.check: f for f in audit(examples, held_out, ASKED.limits, seed=0)}  # type: ignore[arg-type]


def failed(examples: Sequence[Example]) -> dict[str, str]:
    return {
        name: finding.verdict.severity
        for name, finding in found(examples).items()
        if not finding.verdict.passed
    }


def test_sound_rows_pass_every_check() -> None:
    assert failed(SOUND) == {}


def answered(answer: Callable[[int, Example], str]) -> list[Example]:
    return [row(i, e.prompt, answer(i, e), e.intent) for i, e in enumerate(SOUND)]


SPOILT: dict[str, tuple[list[Example], str]] = {
    "rows": (SOUND[:1000], "warn"),
    "exact_duplicates": (SOUND + [replace(e, id=f"again-{e.id}") for e in SOUND[:300]], "warn"),
    "distinct_answers": (answered(lambda i, e: SOUND[i % 20].response), "error"),
    "vendi": (answered(lambda i, e: SOUND[i % 20].response), "error"),
    "openings": (answered(lambda i, e: f"Thank you for {e.response}" if i % 3 else e.response), "error"),
    "style": ([row(i, f"Dear Sir, {e.prompt}.", e.response, e.intent) for i, e in enumerate(SOUND)], "warn"),
    "intents": ([replace(e, intent="refund") for e in SOUND], "error"),
    "intent_rows": ([replace(e, intent="rare") if i < 5 else e for i, e in enumerate(SOUND)], "error"),
    "personal_data": (
        answered(lambda i, e: f"{e.response} write to jo{i}@shop.com" if i < 20 else e.response),
        "warn",
    ),
    "labels": (
        [replace(e, intent=SUBJECTS[i * 7 % 5] if i % 4 else e.intent) for i, e in enumerate(SOUND)],
        "error",
    ),
    "conflicting_answers": (
        [row(i, SOUND[i % 2000].prompt, e.response, e.intent) for i, e in enumerate(SOUND)],
        "error",
    ),
}


@pytest.mark.parametrize("check", SPOILT)
def test_it_finds_what_was_spoilt(check: str) -> None:
    examples, severity = SPOILT[check]
    finding = found(examples)[check]
    assert (finding.verdict.passed, finding.verdict.severity) == (False, severity)
    assert finding.mend


def test_look_alikes_are_those_that_an_exact_comparison_finds() -> None:
    draw = random.Random(1)
    changed = []
    for number, example in enumerate(SOUND[:300]):
        words = example.response.split()
        words[draw.randrange(len(words))] = "other"
        changed.append(row(90000 + number, example.prompt, " ".join(words)))
    examples = SOUND[:300] + changed
    texts = [normalised(f"{e.prompt}\n{e.response}") for e in examples]
    exact, proposed = near_identical(texts, SIMILARITY), look_alikes(examples)
    # MinHash misses a few pairs near the limit and invents none.
    assert len(set(exact)) <= len(set(proposed)) <= len(set(exact)) * 1.03
    together = [(i, i + 300) for i in range(300)]
    missed = sum(exact[i] == exact[j] and proposed[i] != proposed[j] for i, j in together)
    assert sum(exact[i] == exact[j] for i, j in together) > 100
    assert missed < 10
    assert not any(exact[i] != exact[j] and proposed[i] == proposed[j] for i, j in together)


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
    limit = Limit(warn=0.0, error=0.5)
    assert (not personal_data([row(0, text, "yes")], limit).verdict.passed) is holds


def test_the_worse_limit_decides() -> None:
    limit = Limit(warn=0.5, error=0.1)
    verdicts = [
        judge("x", value, limit, worse="below", message="", mend="do").verdict for value in (0.6, 0.3, 0.05)
    ]
    assert [(v.passed, v.severity, v.limit) for v in verdicts] == [
        (True, "warn", 0.5),
        (False, "warn", 0.5),
        (False, "error", 0.1),
    ]


def test_the_order_of_rows_changes_nothing() -> None:
    shuffled = [SOUND[i] for i in np.random.default_rng(0).permutation(len(SOUND))]
    held_out = {e.id: "train" for e in SOUND}
    first, second = (audit(r, held_out, ASKED.limits, seed=0) for r in (SOUND, shuffled))  # type: ignore[arg-type]
    assert first == second


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(DataError, match="audit.allow: 'vendy' is no check"):
        replace(ASKED, allow=("vendy",))
