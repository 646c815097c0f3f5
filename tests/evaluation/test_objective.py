from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sweep.errors import ConfigError
from sweep.evaluation.business import Business, HardLimits, Latency, OneOff
from sweep.evaluation.compare import loss_score
from sweep.evaluation.objective import TAKEN, Loss, MetricObjective, Objective, measured, succeeds
from sweep.evaluation.outcomes import Outcome
from sweep.types import RowLoss, Verdict
from tests.evaluation.tickets import business, outcome

BUSINESS = business(hard_limits=HardLimits(pii_leak_max=0.0, toxic_max=0.001))
METRIC = MetricObjective(metric="chrf", rung_metric="loss", escalation=(), proxy="chrf", labels=None)
# What every row pays: 100 tokens at 0.90 / 1800 a request, and 960 over 6 * 20,000 tickets.
SERVING, ONE_OFF = 0.0005, 0.008


def random_outcomes(count: int) -> list[Outcome]:
    rng = np.random.default_rng(0)
    parts = rng.dirichlet([2, 1, 1], size=count)
    return [
        outcome(
            str(at),
            resolved=resolved,
            escalated=escalated,
            seconds=float(rng.gamma(2, 1)),
            prompt_tokens=int(rng.integers(20, 400)),
            scores={"chrf": float(rng.uniform())},
        )
        for at, (resolved, escalated, _) in enumerate(parts)
    ]


def verdicts(objective: Business, rows: list[Outcome]) -> dict[str, Verdict]:
    return {verdict.check: verdict for verdict in objective.verdicts(objective.score(rows))}


@pytest.mark.parametrize(
    ("row", "net"),
    [
        (outcome("a", resolved=1.0), 4 - SERVING - ONE_OFF),
        (outcome("a", resolved=0.0, escalated=1.0), -0.5 - SERVING - ONE_OFF),
        (outcome("a", resolved=0.0), -6 - SERVING - ONE_OFF),
        # 0.5 * 4 - 0.3 * 0.5 - 0.2 * 6
        (outcome("a", resolved=0.5, escalated=0.3), 0.65 - SERVING - ONE_OFF),
        # 1.5 s over the budget.
        (outcome("a", resolved=1.0, seconds=4.0), 4 - 0.075 - SERVING - ONE_OFF),
        (outcome("a", resolved=1.0, seconds=2.5), 4 - SERVING - ONE_OFF),
        # 500 tokens in place of 100.
        (outcome("a", resolved=1.0, prompt_tokens=460), 4 - 5 * SERVING - ONE_OFF),
    ],
)
def test_the_net_value_of_a_ticket_by_hand(row: Outcome, net: float) -> None:
    assert BUSINESS.row_values([row])["a"] == pytest.approx(net, abs=1e-12)
    assert BUSINESS.row_values([row], trained=False)["a"] == pytest.approx(net + ONE_OFF, abs=1e-12)
    assert BUSINESS.score([row]).value == pytest.approx(net, abs=1e-12)


def test_nothing_paid_once_is_as_if_not_trained() -> None:
    free = replace(BUSINESS, one_off=OneOff(training=None, data=0, horizon_months=6))
    row = outcome("a", resolved=1.0)
    assert free.score([row]).value == BUSINESS.score([row], trained=False).value


def test_the_value_is_the_sum_of_its_parts_and_the_mean_of_its_rows() -> None:
    rows = random_outcomes(200)
    for trained in (True, False):
        score = BUSINESS.score(rows, trained=trained)
        known = score.metrics
        parts = known["value_resolved"] - sum(v for name, v in known.items() if name.startswith("cost_"))
        values = list(BUSINESS.row_values(rows, trained=trained).values())
        assert score.value == pytest.approx(parts)
        assert score.value == pytest.approx(np.mean(values))
        assert score.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(200))
        assert score.examples == 200
    assert known["cost_one_off"] == 0
    assert known["resolved"] + known["escalated"] + known["wrong"] == pytest.approx(1)
    assert known["p95_seconds"] == pytest.approx(np.percentile([row.seconds for row in rows], 95))
    assert known["chrf"] == pytest.approx(np.mean([row.scores["chrf"] for row in rows]))
    assert known.keys() - {"chrf"} == TAKEN


def test_a_single_row_has_no_standard_error_and_no_row_no_score() -> None:
    assert BUSINESS.score([outcome("a", resolved=1.0)]).standard_error == math.inf
    for objective in (BUSINESS, METRIC, Loss(rung_metric="loss")):
        with pytest.raises(ValueError, match=r"at least one must"):
            objective.score([])


def test_limits_that_hold_pass_and_those_that_do_not_say_by_how_much() -> None:
    good = [outcome(str(at), resolved=1.0, scores={"toxic": 0.0}) for at in range(20)]
    found = verdicts(BUSINESS, good)
    assert [check for check, verdict in found.items() if not verdict.passed] == []
    assert succeeds(tuple(found.values()))
    bad = [
        outcome("a", resolved=0.5, escalated=0.2, leaks=True, scores={"toxic": 1.0}, seconds=3.0),
        outcome("b", resolved=0.0, calibrated=False, scores={"toxic": 0.0}, seconds=3.0),
    ]
    found = verdicts(BUSINESS, bad)
    assert {check: (round(v.value, 6), v.limit, v.severity) for check, v in found.items()} == {
        "net_per_ticket": (round(BUSINESS.score(bad).value, 6), 0.5, "warn"),
        "resolved": (0.25, 0.55, "warn"),
        "wrong": (0.65, 0.05, "warn"),
        "p95_latency_ms": (3000.0, 2500, "warn"),
        "calibrated": (0.5, 0.0, "warn"),
        "pii_leak": (0.5, 0.0, "error"),
        "toxic": (0.5, 0.001, "error"),
    }
    assert not any(verdict.passed for verdict in found.values())


def test_a_limit_at_its_value_holds() -> None:
    rows = [outcome(str(at), resolved=float(at < 11), escalated=0.9 * (at >= 11)) for at in range(20)]
    at_limit = replace(BUSINESS, success=replace(BUSINESS.success, resolved_min=0.55))
    assert verdicts(at_limit, rows)["resolved"].passed
    above = replace(BUSINESS, success=replace(BUSINESS.success, resolved_min=0.551))
    assert not verdicts(above, rows)["resolved"].passed


def test_toxicity_that_no_scorer_measures_is_said_and_hinders_no_success() -> None:
    rows = [outcome("a", resolved=1.0)]
    unchecked = verdicts(BUSINESS, rows)
    assert not unchecked["toxic"].passed
    assert unchecked["toxic"].severity == "warn"
    assert math.isnan(unchecked["toxic"].value)
    assert unchecked["toxic"].message.startswith("not checked: no scorer is named toxic")
    assert succeeds(tuple(unchecked.values()))
    unasked = replace(BUSINESS, hard_limits=HardLimits(pii_leak_max=0, toxic_max=None))
    assert "toxic" not in verdicts(unasked, rows)


def test_without_limits_there_is_no_success() -> None:
    assert not succeeds(METRIC.verdicts(METRIC.score(random_outcomes(5))))


def test_the_loss_is_that_of_all_tokens_and_the_mean_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    rows = [RowLoss(str(at), float(rng.gamma(5)), int(rng.integers(1, 60))) for at in range(50)]
    objective = Loss(rung_metric="loss")
    assert objective.score(rows) == loss_score(rows)
    assert np.mean(list(objective.row_values(rows).values())) == pytest.approx(loss_score(rows).value)
    assert not objective.needs_replies
    assert not objective.higher_is_better


def test_the_metric_objective_is_a_scorers_mean_over_the_rows_that_it_scores() -> None:
    rows = [
        outcome("a", resolved=1.0, scores={"chrf": 0.2}),
        outcome("b", resolved=0.0, scores={"chrf": 0.6, "facts": 1.0}),
        outcome("c", resolved=0.0, scores={"facts": 0.0}),
    ]
    assert METRIC.row_values(rows) == {"a": 0.2, "b": 0.6}
    score = METRIC.score(rows)
    assert (score.value, score.examples) == (pytest.approx(0.4), 2)
    assert score.standard_error == pytest.approx(0.2)
    assert score.metrics == measured(rows)
    assert score.metrics["facts"] == 0.5
    assert score.metrics["resolved"] == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match=r"objective\.metric=chrf: gave no number for any of 1 rows"):
        METRIC.score(rows[2:])


def test_every_objective_names_itself() -> None:
    objectives: list[Objective] = [BUSINESS, METRIC, Loss(rung_metric="perplexity")]
    assert [(one.name, one.unit, one.rung_metric) for one in objectives] == [
        ("net value", "EUR per ticket", "loss"),
        ("chrf", "from 0 to 1", "loss"),
        ("loss", "nats per token", "perplexity"),
    ]


def test_latency_is_that_of_the_serving_machine_where_its_speed_is_given() -> None:
    served = Latency(p95_budget_ms=1000, per_second_over=0.5, read_per_second=100, write_per_second=10)
    row = replace(outcome("a", resolved=1.0), prompt_tokens=200, tokens=20, seconds=99.0)
    assert served.seconds(row) == 4.0
    assert served.cost(row) == pytest.approx(1.5)
    with pytest.raises(ConfigError, match="must both be numbers, or both null"):
        replace(served, write_per_second=None)
