"""What MLflow is shown of a trial's rungs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mlflow.utils.validation import _validate_metric_name

from sweep.tracking.points import TAKEN, Point, final_points, finite, rung_points
from sweep.types import Report, Standing
from tests.studies import standing


def values(point: Point) -> dict[str, float]:
    return dict(point.values)


def judged_again() -> Standing:
    """At 96 examples its loss had risen, so its state after 32 was scored again, and probed."""
    trial = standing(0, {32: 2.0, 96: 2.5}, "complete")
    again = Report(
        job="",
        trial="0",
        attempt=0,
        examples_seen=32,
        state="reached",
        validation_loss=2.1,
        metrics={"guard/verbatim": 0.25, "validation_rows": 32.0},
    )
    return replace(trial, reports=(*trial.reports, again))


def test_a_state_scored_again_is_no_further_point_of_its_rung() -> None:
    again = judged_again()
    whole, rest = rung_points(again, after=-1), rung_points(again, after=32)
    assert [point.step for point in whole] == [32, 96]
    assert [values(point)["validation_loss"] for point in whole] == [2.0, 2.5]
    assert [point.step for point in rest] == [96]


def test_the_final_loss_is_that_of_the_state_that_counts_with_its_guards() -> None:
    (point,) = final_points(judged_again())
    assert (point.step, values(point)) == (32, {"final_validation_loss": 2.1, "guard/verbatim": 0.25})
    assert values(point).keys() <= TAKEN
    (plain,) = final_points(standing(0, {32: 2.0, 96: 1.5}, "complete"))
    assert (plain.step, values(plain)) == (96, {"final_validation_loss": 1.5})


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("accuracy@1", "accuracy_1"),
        ("a//b", "a/b"),
        ("/a/", "a"),
        ("a/../b", "a/b"),
        ("./..", "_"),
        ("ä" * 300, "_" * 250),
        ("top 5: a-b.c", "top 5: a-b.c"),
    ],
)
def test_mlflow_takes_every_key(key: str, stored: str) -> None:
    assert [*finite({key: 1.0})] == [stored]
    _validate_metric_name(stored)
