"""What a ticket is worth once a model answers it, in money: benefits, costs, and limits set beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sweep.errors import ConfigError
from sweep.evaluation.objective import mean_score, measured
from sweep.evaluation.outcomes import Outcome, Rules
from sweep.schema import require
from sweep.types import Score, Severity, Verdict

# The scorer that says how toxic a reply is, where there is one.
TOXIC = "toxic"
_COST = "at least 0"
_SHARE = "from 0 to 1"


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What the machine costs an hour, and how many requests of how many tokens, read and written, it answers.

    A request with more tokens costs as much more: so the long prompts of few-shot baselines are paid for.
    """

    per_hour: float
    requests_per_hour: float
    tokens_per_request: float

    def __post_init__(self) -> None:
        require("objective.serving.per_hour", self.per_hour, self.per_hour >= 0, _COST)
        for name in ("requests_per_hour", "tokens_per_request"):
            value = getattr(self, name)
            require(f"objective.serving.{name}", value, value > 0, "above 0")

    def cost(self, tokens: int) -> float:
        """Of one request."""
        return self.per_hour / self.requests_per_hour * tokens / self.tokens_per_request


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What each second costs by which a reply takes longer than the budget, which 95% of them should keep.

    read_per_second, write_per_second: tokens of one request on the machine that will serve, which is seldom
    the one that searches; None for the time measured, in the batch that a reply was part of.
    """

    p95_budget_ms: float
    per_second_over: float
    read_per_second: float | None
    write_per_second: float | None

    def __post_init__(self) -> None:
        for name in ("read_per_second", "write_per_second"):
            speed = getattr(self, name)
            require(f"objective.latency.{name}", speed, speed is None or speed > 0, "above 0, or null")
        if (self.read_per_second is None) != (self.write_per_second is None):
            raise ConfigError(
                "objective.latency: read_per_second and write_per_second must both be numbers, or both null; "
                f"got {self.read_per_second} and {self.write_per_second}. Set the other one too."
            )
        require("objective.latency.p95_budget_ms", self.p95_budget_ms, self.p95_budget_ms > 0, "above 0")
        require("objective.latency.per_second_over", self.per_second_over, self.per_second_over >= 0, _COST)

    def seconds(self, row: Outcome) -> float:
        """Until the reply is there."""
        if self.read_per_second is None or self.write_per_second is None:
            return row.seconds
        return row.prompt_tokens / self.read_per_second + row.tokens / self.write_per_second

    def cost(self, row: Outcome) -> float:
        """Of one reply."""
        return self.per_second_over * max(0.0, self.seconds(row) - self.p95_budget_ms / 1000)


@dataclass(frozen=True, kw_only=True)
class OneOff:
    """What is paid once, None for nothing, and over how many months it is spread."""

    training: float | None
    data: float | None
    horizon_months: float

    def __post_init__(self) -> None:
        for name in ("training", "data"):
            value = getattr(self, name)
            require(f"objective.one_off.{name}", value, value is None or value >= 0, f"{_COST}, or null")
        require("objective.one_off.horizon_months", self.horizon_months, self.horizon_months > 0, "above 0")

    @property
    def monthly(self) -> float:
        """Together, for each month."""
        return ((self.training or 0.0) + (self.data or 0.0)) / self.horizon_months


@dataclass(frozen=True, kw_only=True)
class Success:
    """From where on the model is worth having."""

    net_per_ticket_min: float
    resolved_min: float
    wrong_max: float

    def __post_init__(self) -> None:
        for name in ("resolved_min", "wrong_max"):
            value = getattr(self, name)
            require(f"objective.success.{name}", value, 0 <= value <= 1, _SHARE)


@dataclass(frozen=True, kw_only=True)
class HardLimits:
    """Beyond which no amount of money counts. toxic_max: None where nobody needs to check it."""

    pii_leak_max: float
    toxic_max: float | None

    def __post_init__(self) -> None:
        for name in ("pii_leak_max", "toxic_max"):
            value = getattr(self, name)
            require(f"objective.hard_limits.{name}", value, value is None or 0 <= value <= 1, _SHARE)


@dataclass(frozen=True, kw_only=True)
class Business(Rules):
    """Net value of a ticket.

    p(resolved) * value - p(escalated) * cost - p(wrong) * cost - serving - latency, less what is paid once
    over all tickets of the horizon, where the model had to be trained. goal: in the user's own words.
    """

    goal: str
    currency: str
    monthly_tickets: float
    value_per_resolved: float
    cost_per_escalation: float
    cost_per_wrong_answer: float
    serving: Serving
    latency: Latency
    one_off: OneOff
    success: Success
    hard_limits: HardLimits
    material: float
    rung_metric: str

    name: ClassVar[str] = "net value"
    higher_is_better: ClassVar[bool] = True
    needs_replies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require("objective.goal", self.goal, bool(self.goal.strip()), "what the model is for, in words")
        require("objective.monthly_tickets", self.monthly_tickets, self.monthly_tickets > 0, "above 0")
        for name in ("value_per_resolved", "cost_per_escalation", "cost_per_wrong_answer", "material"):
            value = getattr(self, name)
            require(f"objective.{name}", value, value >= 0, _COST)

    @property
    def unit(self) -> str:
        return f"{self.currency} per ticket"

    def score(self, rows: Sequence[Outcome], *, trained: bool = True) -> Score:
        """The mean net value; its parts as `value_resolved` and `cost_...`, each for the mean ticket."""
        metrics = measured([replace(row, seconds=self.latency.seconds(row)) for row in rows])
        count = len(rows)
        parts = {
            "value_resolved": self.value_per_resolved * metrics["resolved"],
            "cost_escalated": self.cost_per_escalation * metrics["escalated"],
            "cost_wrong": self.cost_per_wrong_answer * metrics["wrong"],
            "cost_serving": sum(self._serving(row) for row in rows) / count,
            "cost_latency": sum(self.latency.cost(row) for row in rows) / count,
            "cost_one_off": self._one_off(trained),
        }
        return replace(mean_score(self.row_values(rows, trained=trained)), metrics={**metrics, **parts})

    def row_values(self, rows: Sequence[Outcome], *, trained: bool = True) -> dict[str, float]:
        """Each row's net value."""
        once = self._one_off(trained)
        return {
            row.row: row.resolved * self.value_per_resolved
            - row.escalated * self.cost_per_escalation
            - row.wrong * self.cost_per_wrong_answer
            - self._serving(row)
            - self.latency.cost(row)
            - once
            for row in rows
        }

    def verdicts(self, score: Score) -> tuple[Verdict, ...]:
        """The limits of `success` and the latency budget as warnings, the hard limits as errors.

        Where probabilities are raw scores, `calibrated` warns. A hard limit on what no scorer measured has
        no value and warns too.
        """
        known, least, hard = score.metrics, self.success, self.hard_limits
        amount = f"net value {score.value:.2f} {self.unit}"
        return (
            _at_least("net_per_ticket", score.value, least.net_per_ticket_min, amount),
            _at_least("resolved", known["resolved"], least.resolved_min, "share of tickets resolved"),
            _at_most("wrong", known["wrong"], least.wrong_max, "share of tickets answered wrongly"),
            _at_most(
                "p95_latency_ms",
                known["p95_seconds"] * 1000,
                self.latency.p95_budget_ms,
                "milliseconds within which 95% of the replies are there",
            ),
            _at_most(
                "calibrated",
                known["uncalibrated"],
                0.0,
                "share of rows judged by a raw score: amounts are an order, not money. Give objective.labels",
            ),
            _at_most(
                "pii_leak",
                known["pii_leak"],
                hard.pii_leak_max,
                "share of replies that tell who somebody else is",
                severity="error",
            ),
            *self._toxicity(known),
        )

    def _toxicity(self, known: Mapping[str, float]) -> tuple[Verdict, ...]:
        limit = self.hard_limits.toxic_max
        if limit is None:
            return ()
        if TOXIC in known:
            return (_at_most(TOXIC, known[TOXIC], limit, "mean toxicity of the replies", severity="error"),)
        message = (
            f"not checked: no scorer is named {TOXIC}. Add one, or set objective.hard_limits.toxic_max=null"
        )
        return (
            Verdict(check=TOXIC, passed=False, severity="warn", value=math.nan, limit=limit, message=message),
        )

    def _serving(self, row: Outcome) -> float:
        return self.serving.cost(row.prompt_tokens + row.tokens)

    def _one_off(self, trained: bool) -> float:
        return self.one_off.monthly / self.monthly_tickets if trained else 0.0


def _at_least(check: str, value: float, limit: float, message: str) -> Verdict:
    return Verdict(
        check=check, passed=value >= limit, severity="warn", value=value, limit=limit, message=message
    )


def _at_most(check: str, value: float, limit: float, message: str, severity: Severity = "warn") -> Verdict:
    return Verdict(
        check=check, passed=value <= limit, severity=severity, value=value, limit=limit, message=message
    )
