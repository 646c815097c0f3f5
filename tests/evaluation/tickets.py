"""Rows and replies for tests of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.data.example import Example, Message
from sweep.evaluation.outcomes import Outcome
from sweep.types import Reply


def example(
    name: str = "a",
    answer: str = "It takes two days.",
    *,
    question: str = "How long?",
    required: Sequence[str] = (),
    forbidden: Sequence[str] = (),
    slices: Mapping[str, str] | None = None,
) -> Example:
    return Example(
        id=name,
        messages=(Message(role="user", content=question), Message(role="assistant", content=answer)),
        intent=None,
        required=tuple(required),
        forbidden=tuple(forbidden),
        slices=slices or {},
    )


def reply(row: str, text: str, *, seconds: float = 1.0, prompt_tokens: int = 60, tokens: int = 40) -> Reply:
    return Reply(row, text, prompt_tokens, tokens, seconds, ended=True)


def outcome(row: str, *, resolved: float, escalated: float = 0.0, **given: Any) -> Outcome:
    known = {
        "scores": {},
        "leaks": False,
        "calibrated": True,
        "seconds": 1.0,
        "prompt_tokens": 60,
        "tokens": 40,
        "slices": {},
        **given,
    }
    return Outcome(row=row, resolved=resolved, escalated=escalated, wrong=1 - resolved - escalated, **known)
