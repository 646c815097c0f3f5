from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import pytest

from sweep.evaluation.compare import loss_score
from sweep.evaluation.metrics import HardRows, Perplexity, measured
from sweep.types import RowLoss

# Losses per token 1, 2, ... 10, over 10, 20, ... 100 tokens.
ROWS = [RowLoss(str(k), nats=10.0 * k * k, tokens=10 * k) for k in range(1, 11)]


def test_perplexity_is_that_of_all_tokens_together():
    assert Perplexity()(ROWS) == pytest.approx(math.exp(loss_score(ROWS).value))
    assert Perplexity()([RowLoss("a", math.log(8) * 5, 5)]) == pytest.approx(8)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 10.0), (0.2, (1000 + 810) / 190), (0.001, 10.0)])
def test_the_hard_rows_are_those_with_the_highest_loss_per_token(share, expected):
    assert HardRows(share=share)(ROWS) == pytest.approx(expected)
    assert HardRows(share=share)(ROWS[::-1]) == pytest.approx(expected)


def test_all_rows_are_as_hard_as_the_mean():
    assert HardRows(share=1.0)(ROWS) == pytest.approx(loss_score(ROWS).value)


def test_rows_without_a_token_are_neither_hard_nor_easy():
    assert HardRows(share=0.5)([RowLoss("a", 0.0, 0), RowLoss("b", 6.0, 2)]) == 3.0


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(ValueError, match="needs share above 0 and at most 1, got share="):
        HardRows(share=share)


def test_a_metric_without_a_value_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture):
    def raising(rows: Sequence[RowLoss]) -> float:
        return rows[0].nats / 0

    metrics = {"good": Perplexity(), "raising": raising, "endless": lambda rows: math.inf}
    with caplog.at_level(logging.WARNING, "sweep.evaluation"):
        for _ in range(3):
            assert measured(ROWS[:2], metrics).keys() == {"good"}
    first, second = caplog.messages
    assert first.startswith("metric.raising raised ZeroDivisionError, so it is left out")
    assert second.startswith("metric.endless gave inf, so it is left out")
    assert "rows[0].nats / 0" in str(caplog.text), "the traceback shows where"


def test_nothing_is_measured_on_no_rows():
    assert measured([], {"perplexity": Perplexity()}) == {}
