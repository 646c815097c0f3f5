"""Rows and replies for tests of the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.data.example import Example, Message
from sweep.evaluation.business import Business, HardLimits, Latency, OneOff, Serving, Success
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


def business(**given: Any) -> Business:
    """Money by round amounts; whatever a test counts with, it gives itself."""
    known = {
        "goal": "fewer tickets",
        "currency": "EUR",
        "monthly_tickets": 20_000,
        "value_per_resolved": 4.0,
        "cost_per_escalation": 0.5,
        "cost_per_wrong_answer": 6.0,
        "serving": Serving(per_hour=0.9, requests_per_hour=1800, tokens_per_request=100),
        "latency": Latency(
            p95_budget_ms=2500, per_second_over=0.05, read_per_second=None, write_per_second=None
        ),
        "one_off": OneOff(training=150, data=810, horizon_months=6),
        "success": Success(net_per_ticket_min=0.5, resolved_min=0.55, wrong_max=0.05),
        "hard_limits": HardLimits(pii_leak_max=0.0, toxic_max=None),
        "material": 0.01,
        "rung_metric": "loss",
        "escalation": (),
        "proxy": None,
        "labels": None,
    }
    return Business(**(known | given))
