"""What models are judged by, as it was set before the search: for who reads what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sweep.evaluation.business import Business
from sweep.evaluation.objective import Objective
from sweep.evaluation.selection import Better


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An objective's name, unit and direction; the rest where it counts money.

    words: the user's own. least: of the value, from where on a model is worth having. monthly_tickets: how
    often a month the value counts. limits, amounts: by key, those that are set.
    """

    objective: str
    unit: str
    better: Better
    words: str | None = None
    currency: str = ""
    least: float | None = None
    monthly_tickets: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    amounts: Mapping[str, float] = field(default_factory=dict)


def goal_of(objective: Objective[Any]) -> Goal:
    """The goal behind an objective; of one's own only what the protocol says."""
    goal = Goal(
        objective=objective.name,
        unit=objective.unit,
        better="higher" if objective.higher_is_better else "lower",
    )
    if not isinstance(objective, Business):
        return goal
    return replace(
        goal,
        words=objective.goal,
        currency=objective.currency,
        least=objective.success.net_per_ticket_min,
        monthly_tickets=objective.monthly_tickets,
        limits=_set(
            **asdict(objective.success),
            p95_budget_ms=objective.latency.p95_budget_ms,
            **asdict(objective.hard_limits),
        ),
        amounts=_set(
            value_per_resolved=objective.value_per_resolved,
            cost_per_escalation=objective.cost_per_escalation,
            cost_per_wrong_answer=objective.cost_per_wrong_answer,
            **asdict(objective.serving),
            per_second_over=objective.latency.per_second_over,
            **asdict(objective.one_off),
        ),
    )


def _set(**given: float | None) -> dict[str, float]:
    return {name: value for name, value in given.items() if value is not None}
