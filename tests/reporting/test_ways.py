"""Values and intervals of all ways to answer: the table against scipy, the figure against the table."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from sweep.analysis.ways import interval_of, ways_of
from sweep.evaluation.compare import loss_score
from sweep.evaluation.goal import goal_of
from sweep.evaluation.objective import Loss, mean_score
from sweep.reporting.ways import ways_figure
from sweep.types import RowLoss, Score
from tests.reporting.confirmed import BUSINESS, confirmation, score, simpler

GOAL = goal_of(BUSINESS)
FOUND = confirmation("7")


def test_the_interval_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(0).normal(2.0, 0.5, 12)
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    money = mean_score({str(at): value for at, value in enumerate(values)})
    assert interval_of(money) == pytest.approx((interval.low, interval.high))
    loss = loss_score([RowLoss(str(at), value, 1) for at, value in enumerate(values)])
    assert interval_of(loss) == pytest.approx((interval.low, interval.high))
    assert interval_of(Score(value=1.0, standard_error=math.inf, examples=1)) == (-math.inf, math.inf)


def test_every_way_stands_in_the_table_with_the_rows_that_it_was_asked() -> None:
    table = ways_of(FOUND.baselines, FOUND)
    found = [tuple(row) for row in table[["way", "kind", "split", "value"]].to_numpy().tolist()]
    assert found == [
        ("trial 7", "winner", "confirm", 0.82),
        ("trial 7", "winner", "test", 0.8),
        ("defaults (trial 0)", "defaults", "confirm", 0.5),
        ("defaults (trial 0)", "defaults", "test", 0.55),
        ("nearest", "baseline", "confirm", 0.35),
        ("nearest", "baseline", "test", 0.3),
        ("few shot", "baseline", "confirm", -0.2),
    ]
    np.testing.assert_allclose(table["high"] - table["value"], 0.1998, atol=1e-4)
    np.testing.assert_allclose(table["value"] - table["low"], 0.1998, atol=1e-4)


def test_of_losses_the_lowest_stands_on_top() -> None:
    table = ways_of(FOUND.baselines, replace(FOUND, better="lower"))
    assert list(table["way"].drop_duplicates()) == ["few shot", "nearest", "defaults (trial 0)", "trial 7"]


def test_defaults_that_win_stand_there_once() -> None:
    table = ways_of((), confirmation("0"))
    own = table[table["kind"] != "baseline"]
    assert list(own["way"]) == ["defaults (trial 0)"] * 2
    assert list(own["kind"]) == ["winner"] * 2


def test_before_confirmation_there_are_simpler_ways_alone() -> None:
    table = ways_of([simpler("canned", 0.1), simpler("nearest", 0.0)], None)
    assert list(table["way"]) == ["canned", "nearest"]
    assert set(table["split"]) == {"confirm"}
    assert [bar.name for bar in ways_figure(table, replace(GOAL, least=None)).data] == [
        "confirm rows, which chose the winner"
    ]


def test_the_bars_and_whiskers_are_the_tables_numbers() -> None:
    table = ways_of(FOUND.baselines, FOUND)
    figure = ways_figure(table, GOAL)
    for bar, split in zip(figure.data, ("confirm", "test"), strict=False):
        rows = table[table["split"] == split]
        np.testing.assert_allclose(bar.x, rows["value"])
        np.testing.assert_allclose(np.add(bar.x, bar.error_x.array), rows["high"])
        np.testing.assert_allclose(np.subtract(bar.x, bar.error_x.arrayminus), rows["low"])
        assert [text.removeprefix("<b>").removesuffix("</b>") for text in bar.y] == list(rows["way"])
    assert figure.data[0].y[0] == "<b>trial 7</b>"
    assert list(figure.layout.yaxis.categoryarray) == [
        "<b>trial 7</b>",
        "defaults (trial 0)",
        "nearest",
        "few shot",
    ]
    assert figure.layout.xaxis.title.text == "EUR per ticket"


def test_the_limit_is_a_line_where_there_is_one() -> None:
    table = ways_of(FOUND.baselines, FOUND)
    (line,) = ways_figure(table, GOAL).layout.shapes
    assert (line.x0, line.x1) == (0.5, 0.5)
    assert ways_figure(table, GOAL).data[-1].name == "worth having from 0.5"
    plain = ways_figure(table, goal_of(Loss(rung_metric="loss")))
    assert not plain.layout.shapes
    assert len(plain.data) == 2


def test_an_interval_without_end_is_not_drawn() -> None:
    lonely = replace(simpler("nearest", 0.3), confirm=score(0.3, rows=1))
    (bar,) = ways_figure(ways_of([lonely], None), replace(GOAL, least=None)).data
    assert (list(bar.error_x.array), list(bar.error_x.arrayminus)) == ([0.0], [0.0])


def test_names_are_shown_and_not_run() -> None:
    odd = simpler("<a href='x'>", 0.1)
    figure = ways_figure(ways_of([odd], None), replace(GOAL, unit="<b>", objective="<i>"))
    assert list(figure.data[0].y) == ["&lt;a href=&#x27;x&#x27;&gt;"]
    assert figure.layout.xaxis.title.text == "&lt;b&gt;"
    assert figure.layout.title.text == "&lt;i&gt;"
