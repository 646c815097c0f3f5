from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sweep.errors import DataError
from sweep.evaluation.calibration import Label, Learnt, Raw, calibrate, read_labels
from sweep.evaluation.scorers import Chrf, Exact
from tests.evaluation.tickets import example

ROWS = [example("a", "Two days."), example("b", "Three weeks."), example("c", "Two days.")]


def test_labels_drawn_from_a_logistic_curve_give_it_back() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(size=20_000)
    resolved = rng.uniform(size=20_000) < 1 / (1 + np.exp(4 - 10 * drawn))
    labels = [Label(float(score), bool(said)) for score, said in zip(drawn, resolved, strict=True)]
    curve = calibrate(labels, Chrf(), ROWS)
    assert isinstance(curve, Learnt)
    assert curve.slope == pytest.approx(10, rel=0.05)
    assert curve.intercept == pytest.approx(-4, rel=0.05)
    # 0.4 is where the true curve crosses one half.
    assert curve(0.4) == pytest.approx(0.5, abs=0.02)
    assert curve(1.0) == pytest.approx(1 / (1 + np.exp(-6)), abs=0.005)


def test_a_hundred_labels_calibrate_and_99_do_not() -> None:
    labels = [Label(at / 100, at % 10 < at // 10) for at in range(100)]
    assert calibrate(labels, Exact(), ROWS).calibrated
    assert not calibrate(labels[:-1], Exact(), ROWS).calibrated


def test_labels_that_a_score_parts_cleanly_make_a_steep_curve() -> None:
    curve = calibrate([Label(at / 200, at >= 100) for at in range(200)], Exact(), ROWS)
    assert curve(0.3) < 0.01
    assert curve(0.7) > 0.99
    assert curve(0.0) >= 0.0


def test_labels_that_all_say_the_same_are_refused() -> None:
    with pytest.raises(DataError, match="all 100 rows say resolved=True; there must be both"):
        calibrate([Label(0.5, True)] * 100, Exact(), ROWS)


def test_without_labels_a_random_answer_counts_as_nothing() -> None:
    # The answers of b, c, a in place of those of a, b, c: only the last one is the same.
    raw = calibrate([], Exact(), ROWS)
    assert raw == Raw(pytest.approx(1 / 3))
    assert [raw(1 / 3), raw(2 / 3), raw(1.0), raw(0.0)] == pytest.approx([0, 0.5, 1, 0])


def test_the_raw_score_needs_no_second_row_and_survives_equal_answers() -> None:
    assert calibrate([], Exact(), ROWS[:1])(0.4) == 0.4
    assert calibrate([], Exact(), [ROWS[0], ROWS[2]])(0.4) == 0.4


def test_labels_are_read_with_scores_or_with_replies_to_rows(tmp_path: Path) -> None:
    by_id = {row.id: row for row in ROWS}
    scored = tmp_path / "scored.csv"
    scored.write_text("score,resolved\n0.25,yes\n1,0\n", encoding="utf-8")
    assert read_labels(scored, Exact(), by_id) == [Label(0.25, True), Label(1.0, False)]
    replied = tmp_path / "replied.jsonl"
    said = [
        {"row": "a", "reply": "two days.", "resolved": True},
        {"row": "b", "reply": "Soon.", "resolved": 0},
    ]
    replied.write_text("\n".join(map(json.dumps, said)) + "\n\n", encoding="utf-8")
    assert read_labels(replied, Exact(), by_id) == [Label(1.0, True), Label(0.0, False)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "score,resolved\n0.5,yes\n0.5,maybe\n", "line 3: `resolved` is 'maybe'; must be true or"),
        ("a.csv", "score,resolved\n50,yes\n", "line 2: is .*; `score` must be a number from 0 to 1"),
        ("a.csv", "score,resolved\ngood,yes\n", "`score` must be a number from 0 to 1"),
        ("a.csv", "row,reply,resolved\nz,Hello,yes\n", "the id of a `row` of the data and the `reply`"),
        ("a.jsonl", '{"resolved": true}\n', "there must be a `score`"),
        ("a.jsonl", "[1]\n", "line 1: is .*; must be one object"),
        ("a.jsonl", "{\n", "line 1: is not JSON"),
        ("a.jsonl", None, "can't be read: .*; must be a .csv or .jsonl file"),
    ],
)
def test_a_bad_label_is_named_by_file_and_line(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        read_labels(tmp_path / name, Exact(), {row.id: row for row in ROWS})
    assert f"objective.labels={tmp_path / name}" in str(raised.value)
