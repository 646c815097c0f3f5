"""What a sweep found, made up: simpler ways, a confirmation, a goal, an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweep.data.audit.finding import Audited, judge
from sweep.evaluation.business import OneOff
from sweep.evaluation.compare import Difference
from sweep.evaluation.confirmation import Confirmation, Finalist, Simpler
from sweep.evaluation.verdict import Comparison, judge_winner
from sweep.types import Limit, Score, Verdict
from tests.evaluation.tickets import business

BUSINESS = business(
    goal="Fewer tickets for agents",
    value_per_resolved=4.2,
    cost_per_escalation=0.6,
    one_off=OneOff(training=150, data=800, horizon_months=6),
)
AUDITED = Audited(
    findings=(
        judge(
            "rows",
            900,
            Limit(warn=2000, error=500),
            worse="below",
            unit="number",
            message="900 rows",
            mend="Collect.",
        ),
        judge(
            "truncated", 0.3, Limit(warn=0.05, error=0.2), worse="above", message="30% cut", mend="Raise it."
        ),
        judge("distinct", 1.0, Limit(warn=0.5, error=0.1), worse="below", message="all differ", mend="Vary."),
    ),
    allowed=("truncated",),
)


def score(value: float, *, rows: int = 64, **metrics: float) -> Score:
    return Score(value=value, standard_error=0.1, examples=rows, metrics=metrics)


def simpler(name: str, value: float, *, test: float | None = None, succeeds: bool = False) -> Simpler:
    shares = {"resolved": 0.4, "escalated": 0.25, "wrong": 0.35}
    measured = score(value, **shares, p95_seconds=1.25, prompt_tokens=234.0, tokens=6.0)
    return Simpler(
        name=name,
        description=f"how {name} answers",
        confirm=measured,
        test=None if test is None else score(test),
        succeeds=succeeds,
    )


def compared(
    rival: str, value: float, half: float, *, p: float = 0.001, clusters: int = 64, succeeds: bool = False
) -> Comparison:
    """The winner less the rival, with an interval of `half` to both sides."""
    difference = Difference(
        value=value, low=value - half, high=value + half, p_value=p, rows=64, clusters=clusters
    )
    return Comparison(rival=rival, difference=difference, signed_rank_p=p, succeeds=succeeds)


def check(name: str, value: float, limit: float, *, passed: bool, severity: str = "warn") -> Verdict:
    return Verdict(
        check=name,
        passed=passed,
        severity=severity,  # type: ignore[arg-type]
        value=value,
        limit=limit,
        message=f"found by {name}",
    )


def confirmation(
    trial: str,
    *,
    leader: str | None = None,
    baseline: Comparison | None = None,
    defaults: Comparison | None = None,
    verdicts: Sequence[Verdict] = (),
    **given: Any,
) -> Confirmation:
    """Of money: the winner is worth 0.80 on test rows, the defaults 0.55, the copied answer 0.30."""
    best = baseline or compared("nearest", 0.5, 0.1)
    others = defaults or (compared("defaults", 0.25, 0.1) if trial != "0" else None)
    finalists = [Finalist(trial=trial, loss=2.0, confirm=score(0.82), test=score(0.8, loss=2.0))]
    if trial != "0":
        finalists.append(Finalist(trial="0", loss=2.5, confirm=score(0.5), test=score(0.55, loss=2.5)))
    facts = {
        "leader": leader or trial,
        "trial": trial,
        "objective": "net value",
        "unit": "EUR per ticket",
        "better": "higher",
        "seeds": 3,
        "finalists": tuple(finalists),
        "baselines": (
            simpler("nearest", 0.35, test=0.3, succeeds=best.succeeds),
            simpler("few_shot", -0.2),
        ),
        "judgement": judge_winner(best, others, guards=verdicts, better=given.get("better", "higher")),
        "verdicts": tuple(verdicts),
        "slices": (),
        "opened": 1,
        "opened_by": (),
        "as_good": (),
        **given,
    }
    return Confirmation(**facts)
