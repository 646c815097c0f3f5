"""What a sweep was for and what came of it, as sentences and rows of tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sweep.analysis.axes import title
from sweep.analysis.ways import called, interval_of
from sweep.data.audit.finding import Audited
from sweep.evaluation.compare import Difference
from sweep.evaluation.confirmation import Confirmation, Simpler
from sweep.evaluation.goal import Goal
from sweep.reporting.summary import amount, scored, word_of
from sweep.search.stored import StoredStudy

# How checks of the data ended, by the audit's word.
_FAILED = {"error": "failed", "allowed": "failed, but allowed", "warning": "warnings"}
# A value and its interval.
Ends = tuple[float, float, float]
_SHARES = ("resolved", "escalated", "wrong")


class Worth(NamedTuple):
    """A value with its interval, and the same a month, empty where it has no amount."""

    name: str
    value: str
    monthly: str


class Checked(NamedTuple):
    """A limit or a guard of the winner. word: how it ended."""

    check: str
    word: str
    message: str
    value: str
    limit: str


class Part(NamedTuple):
    """The winner less the best baseline on a part of the traffic. word: whether it is served worse."""

    part: str
    rows: int
    difference: str
    word: str


def goal_sentences(goal: Goal) -> list[str]:
    """What models are judged by, from where on one is worth having, and what is counted."""
    if goal.words is None:
        direction = "the higher, the better" if goal.better == "higher" else "the lower, the better"
        return [f"Models are judged by their {title(goal.objective)}, {goal.unit}: {direction}."]
    known, money = {**goal.limits, **goal.amounts}, goal.currency
    toxic = f", or their mean toxicity is above {known['toxic_max']:.2g}" if "toxic_max" in known else ""
    once = known.get("training", 0.0) + known.get("data", 0.0)
    return [
        f"Worth having from {known['net_per_ticket_min']:.2f} {money} net per ticket, with at least "
        f"{known['resolved_min']:.0%} of the tickets resolved, at most {known['wrong_max']:.0%} answered "
        f"wrongly, and 95% of the replies within {known['p95_budget_ms']:,.0f} ms. Ruled out where more than "
        f"{100 * known['pii_leak_max']:.3g}% of the replies tell who somebody else is{toxic}.",
        f"{goal.monthly_tickets:,.0f} tickets a month. A ticket resolved counts "
        f"{known['value_per_resolved']:.2f} {money}, one handed over costs "
        f"{known['cost_per_escalation']:.2f}, one answered wrongly {known['cost_per_wrong_answer']:.2f}; the "
        f"machine {known['per_hour']:.2f} an hour for {known['requests_per_hour']:,.0f} requests of "
        f"{known['tokens_per_request']:,.0f} tokens; a second over the time limit "
        f"{known['per_second_over']:.2f}; training and data {once:,.0f} once, spread over "
        f"{known['horizon_months']:g} months.",
    ]


def data_sentence(audited: Audited) -> str:
    """Whether the data is fit to train on, and which checks say otherwise."""
    failed = audited.failed_by_word
    passed = len(audited.findings) - len(audited.failed)
    told = [
        f"{text}: {', '.join(map(title, failed[word]))}" for word, text in _FAILED.items() if word in failed
    ]
    return "; ".join([f"{passed} of {len(audited.findings)} checks of the data passed", *told]) + "."


def worth_of(confirmation: Confirmation, goal: Goal | None) -> list[Worth]:
    """On test rows: the winner, its rivals, and by how much it is worth more, with 95% intervals."""
    scores = {called(confirmation.trial): confirmation.winner.test}
    if confirmation.baseline:
        scores[f"{title(confirmation.baseline.name)}, the best simpler way"] = confirmation.baseline.test
    if confirmation.defaults and confirmation.trial != "0":
        scores[called("0")] = confirmation.defaults.test
    rows = [
        _worth(name, (score.value, *interval_of(score)), goal, sign="")
        for name, score in scores.items()
        if score
    ]
    return rows + [
        _worth(f"trial {confirmation.trial} less {title(one.rival)}", _ends(one.difference), goal, sign="+")
        for one in confirmation.judgement.comparisons
    ]


def baselines_of(study: StoredStudy) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the simpler ways, best first; without columns that none has a number for."""
    simpler = study.notes.baselines or ()
    goal = study.notes.goal
    limited = goal is not None and bool(goal.limits)
    columns = {
        "way": [title(one.name) for one in simpler],
        goal.objective if goal else "value": [scored(one.confirm) for one in simpler],
        **{name: _metric(simpler, name, "{:.0%}") for name in _SHARES},
        "p95 seconds": _metric(simpler, "p95_seconds", "{:.2f}"),
        "tokens read": _metric(simpler, "prompt_tokens", "{:.0f}"),
        "written": _metric(simpler, "tokens", "{:.0f}"),
        "meets the goal": ["yes" if one.succeeds else "no" for one in simpler] if limited else [],
        "what it is": [one.description for one in simpler],
    }
    shown = {heading: texts for heading, texts in columns.items() if any(text != "-" for text in texts)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def checks_of(confirmation: Confirmation) -> list[Checked]:
    """Each limit and guard of the winner, those that failed first."""
    rows = [
        Checked(
            check=title(verdict.check),
            word=word_of(verdict),
            message=verdict.message,
            value="-" if math.isnan(verdict.value) else amount(verdict.value),
            limit=amount(verdict.limit),
        )
        for verdict in confirmation.verdicts
    ]
    return sorted(rows, key=lambda row: ("error", "warning", "ok", "unknown").index(row.word))


def slices_of(confirmation: Confirmation) -> list[Part]:
    """Each part of the traffic that was compared, those served worse first."""
    rows = [
        Part(
            part=f"{title(one.column)}: {one.value}",
            rows=one.difference.rows,
            difference=_interval(_ends(one.difference), "+"),
            word="worse" if one.worse else "",
        )
        for one in confirmation.slices
    ]
    return sorted(rows, key=lambda row: not row.word)


def _metric(simpler: Sequence[Simpler], name: str, form: str) -> list[str]:
    values = [one.confirm.metrics.get(name) for one in simpler]
    return ["-" if value is None else form.format(value) for value in values]


def _worth(name: str, ends: Ends, goal: Goal | None, *, sign: str) -> Worth:
    if goal is None or goal.monthly_tickets is None:
        return Worth(name, _interval(ends, sign), "")
    value, low, high = (f"{end * goal.monthly_tickets:{sign},.0f}" for end in ends)
    return Worth(name, _interval(ends, sign), f"{value} ({low} to {high})")


def _ends(difference: Difference) -> Ends:
    return difference.value, difference.low, difference.high


def _interval(ends: Ends, sign: str) -> str:
    value, low, high = (f"{end:{sign}.3f}" for end in ends)
    return f"{value} ({low} to {high})"
