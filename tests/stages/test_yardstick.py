"""What models are measured by: the objective's own numbers, row by row, and the mean over seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sweep.data.split import DataSet
from sweep.errors import ConfigError
from sweep.evaluation.business import Business, Latency, OneOff, Serving, Success
from sweep.evaluation.metrics import Perplexity
from sweep.evaluation.outcomes import Judge
from sweep.evaluation.scorers import Facts
from sweep.stages.yardstick import Measured, Yardstick, mean_of
from sweep.types import Report, RowLoss, View
from tests.evaluation.tickets import business, example, reply
from tests.stages.finished import LOSS

ROWS = tuple(example(name, f"In {name} days.", required=[f"{name} days"]) for name in ("2", "3", "4"))
DATA = DataSet(
    examples={"train": (), "validation": ROWS, "confirm": ROWS, "test": (), "golden": ()},
    groups={},
    fingerprint="rows",
    notes=(),
)
BUSINESS = business(
    monthly_tickets=1000,
    serving=Serving(per_hour=1.8, requests_per_hour=1800, tokens_per_request=100),
    latency=Latency(p95_budget_ms=2000, per_second_over=0.1, read_per_second=None, write_per_second=None),
    one_off=OneOff(training=60, data=None, horizon_months=6),
    success=Success(net_per_ticket_min=0.5, resolved_min=0.5, wrong_max=0.1),
    escalation=("a colleague",),
)
# 100 tokens at 1.80 / 1800 a request; 60 over 6 * 1000 tickets.
SERVING, ONE_OFF = 0.001, 0.01
VIEW = View("confirm")
REPLIES = (
    reply("2", "It takes 2 days."),
    reply("3", "I ask a colleague."),
    reply("4", "It takes 9 days.", seconds=5.0),
)


def yardstick(objective: Business | None = None) -> Yardstick:
    return Yardstick(
        objective=objective or LOSS,
        judge=Judge(objective, {"facts": Facts()}, ROWS) if objective else None,
        data=DATA,
        reply_tokens=16,
        metrics={"perplexity": Perplexity()},
    )


def report(*losses: tuple[float, int]) -> Report:
    rows = tuple(RowLoss(row.id, nats, tokens) for row, (nats, tokens) in zip(ROWS, losses, strict=False))
    return Report(job="j", trial="t", attempt=0, examples_seen=8, state="reached", rows=rows)


def test_the_loss_is_nats_over_tokens_and_asks_for_nothing() -> None:
    measure = yardstick()
    found = measure.of_report(VIEW, report((6.0, 2), (1.0, 1), (5.0, 3)))
    assert found.score.value == pytest.approx(12 / 6)
    assert found.score.examples == 3
    assert found.score.metrics == {"perplexity": pytest.approx(math.exp(2))}
    assert found.rows == (("2", 6.0, 2), ("3", 1.0, 1), ("4", 5.0, 3))
    assert measure.asking(VIEW) is None
    assert measure.better == "lower"


@pytest.mark.parametrize("trained", [True, False])
def test_net_value_is_that_of_each_ticket(trained: bool) -> None:
    measure, paid = yardstick(BUSINESS), SERVING + (ONE_OFF if trained else 0.0)
    found = measure.of_replies(VIEW, REPLIES, trained=trained)
    by_hand = [4 - paid, -0.5 - paid, -6 - 3 * 0.1 - paid]
    assert [row for row, _, _ in found.rows] == ["2", "3", "4"]
    assert [total for _, total, _ in found.rows] == pytest.approx(by_hand)
    assert {weight for _, _, weight in found.rows} == {1.0}
    assert found.score.value == pytest.approx(sum(by_hand) / 3)
    assert found.score.metrics["resolved"] == pytest.approx(1 / 3)
    assert measure.better == "higher"


def test_a_report_is_judged_by_its_replies_and_shows_its_losses() -> None:
    measure = yardstick(BUSINESS)
    answered = replace(report((6.0, 2), (1.0, 1), (5.0, 3)), replies=REPLIES)
    found, alone = measure.of_report(VIEW, answered), measure.of_replies(VIEW, REPLIES, trained=True)
    assert found.rows == alone.rows
    assert replace(found.score, metrics={}) == replace(alone.score, metrics={})
    assert found.score.metrics == {
        **alone.score.metrics,
        "loss": pytest.approx(2.0),
        "perplexity": pytest.approx(math.exp(2)),
    }


def test_the_view_says_which_rows_are_asked_and_judged_and_no_answer_is_given_away() -> None:
    measure, two = yardstick(BUSINESS), View("confirm", 2)
    asking = measure.asking(two)
    assert asking
    assert asking.max_tokens == 16
    assert [(prompt.row, prompt.turns) for prompt in asking.prompts] == [
        ("2", (("user", "How long?"),)),
        ("3", (("user", "How long?"),)),
    ]
    assert len(measure.of_replies(two, REPLIES[:2], trained=True).rows) == 2
    with pytest.raises(ValueError, match="2 rows and 3 replies"):
        measure.of_replies(two, REPLIES, trained=True)


def test_an_engine_that_does_not_answer_is_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"net value is judged by replies, and the engine gave none for j"):
        yardstick(BUSINESS).of_report(VIEW, report((6.0, 2), (1.0, 1), (5.0, 3)))


def test_the_mean_of_seeds_is_that_of_each_row_and_number() -> None:
    measure = yardstick()
    one = measure.of_report(VIEW, report((6.0, 2), (1.0, 1), (5.0, 3)))
    other = measure.of_report(VIEW, report((2.0, 2), (3.0, 1), (1.0, 3)))
    found = mean_of({1: one, 2: other})
    assert found.rows == (("2", 4.0, 2.0), ("3", 2.0, 1.0), ("4", 3.0, 3.0))
    assert found.score.value == pytest.approx((2.0 + 1.0) / 2)
    assert found.score.metrics == {"perplexity": pytest.approx((math.exp(2) + math.exp(1)) / 2)}
    pulls = [(4 - 1.5 * 2) / 6, (2 - 1.5) / 6, (3 - 1.5 * 3) / 6]
    assert found.score.standard_error == pytest.approx(math.sqrt(1.5 * sum(pull**2 for pull in pulls)))


def test_a_number_that_a_seed_lacks_is_the_mean_of_the_others() -> None:
    one = yardstick().of_report(VIEW, report((6.0, 2), (1.0, 1), (5.0, 3)))
    bare = Measured(score=replace(one.score, metrics={}), rows=one.rows)
    assert mean_of({1: one, 2: bare}).score.metrics == one.score.metrics
