"""What became of each trial, against expectations written by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sweep.analysis.outcomes import ceiling_of, losses_of, names_of, ordinal, outcomes, rungs_of
from sweep.types import Report, ReportState, Standing, Trial, TrialState
from tests.recipes import DEFAULTS

NAMES = ["learning_rate", "target_modules"]


def report(examples: int, loss: float | None, state: ReportState = "reached") -> Report:
    return Report(
        job="",
        trial="",
        attempt=0,
        examples_seen=examples,
        state=state,
        validation_loss=loss,
        seconds=2.5,
        tokens=100,
        peak_bytes=1000 - examples,
    )


def standing(
    number: int | None,
    losses: dict[int, float],
    state: TrialState = "complete",
    *,
    end: Report | None = None,
    reason: str | None = None,
) -> Standing:
    recipe = dataclasses.replace(DEFAULTS, learning_rate=1e-4 * (1 + (number or 0)))
    reports = tuple(report(examples, loss) for examples, loss in losses.items())
    return Standing(
        trial=Trial(id=str(number), number=number, recipe=recipe, seed=0, base=""),
        state=state,
        reports=(*reports, end) if end else reports,
        reason=reason,
    )


SEARCH = [
    standing(4, {8: 4.0}, "diverged", end=report(13, None, "diverged"), reason="train loss is nan.\nTrace"),
    standing(0, {8: 3.0, 24: 2.0}),
    standing(1, {8: 2.5, 24: 1.5}),
    standing(2, {8: 3.0}, "pruned"),
    standing(3, {8: 2.9}, "paused"),
    standing(5, {}, "running"),
    standing(6, {}, "failed", end=report(2, None, "failed"), reason="\nout of disk\n"),
    standing(7, {}, "paused"),
    standing(None, {8: 0.1, 24: 0.1}),
]


def test_every_trial_of_the_search_is_one_row_in_order_of_number() -> None:
    table = outcomes(SEARCH, NAMES)
    assert table["trial"].tolist() == list(range(8))
    assert table["state"].tolist() == [
        "complete",
        "complete",
        "pruned",
        "paused",
        "diverged",
        "running",
        "failed",
        "paused",
    ]
    assert table["examples_seen"].tolist() == [24, 24, 8, 8, 8, 0, 0, 0]
    np.testing.assert_array_equal(table["loss"], [2.0, 1.5, 3.0, 2.9, 4.0, *[np.nan] * 3])
    np.testing.assert_array_equal(table["loss_8"], [3.0, 2.5, 3.0, 2.9, 4.0, *[np.nan] * 3])
    np.testing.assert_array_equal(table["loss_24"], [2.0, 1.5, *[np.nan] * 6])
    np.testing.assert_allclose(table["learning_rate"], [1e-4 * n for n in range(1, 9)])
    assert table["target_modules"].tolist() == ["all-linear"] * 8
    assert (rungs_of(table), names_of(table)) == ([8, 24], NAMES)
    assert list(losses_of(table)) == [8, 24]


def test_who_got_further_is_placed_before_who_lost_less() -> None:
    table = outcomes(SEARCH, NAMES)
    assert table["place"].dtype == "Int64"
    assert table["place"].tolist() == [2, 1, 4, 3, 5, pd.NA, pd.NA, pd.NA]


def test_trials_of_different_lengths_are_placed_by_their_final_loss() -> None:
    short, long, stopped = standing(0, {8: 1.5}), standing(1, {24: 1.8}), standing(2, {8: 1.0}, "pruned")
    assert outcomes([short, long, stopped], [])["place"].tolist() == [1, 2, 3]


def test_a_reason_says_how_the_trial_ended_and_its_rank_there() -> None:
    assert outcomes(SEARCH, NAMES)["reason"].tolist() == [
        "ran to the end",
        "ran to the end",
        # Level with trial 0, which is older.
        "stopped after 8 examples: 4th of 5",
        "waits after 8 examples: 2nd of 5",
        "train loss is nan.",
        "running",
        "out of disk",
        "waits before its first loss",
    ]


def test_a_complete_trial_says_what_keeps_it_from_winning_and_counts_with_its_best_state() -> None:
    again = standing(1, {8: 2.5, 24: 3.5}, end=report(8, 2.4), reason="judged by its state after 8 examples")
    table = outcomes([standing(0, {8: 3.0, 24: 2.6}), again], [])
    assert table["reason"].tolist() == ["ran to the end", "judged by its state after 8 examples"]
    assert table["loss"].tolist() == [2.6, 2.4]
    assert table["place"].tolist() == [2, 1]
    assert table["examples_seen"].tolist() == [24, 24]
    assert losses_of(table)[8].tolist() == [3.0, 2.5], "at the rung it was scored as the others were"


def test_cost_is_summed_over_all_reports_and_memory_is_their_largest() -> None:
    table = outcomes(SEARCH, NAMES)
    assert table["seconds"].tolist() == [5.0, 5.0, 2.5, 2.5, 5.0, 0.0, 2.5, 0.0]
    assert table["tokens"].tolist() == [200, 200, 100, 100, 200, 0, 100, 0]
    assert table["peak_bytes"].tolist() == [992, 992, 992, 992, 992, 0, 998, 0]


def test_a_loss_that_is_no_number_is_no_rung_reached() -> None:
    table = outcomes([standing(0, {8: 3.0, 24: np.nan}, "diverged"), standing(1, {8: np.inf}, "failed")], [])
    assert table["examples_seen"].tolist() == [8, 0]
    assert table["place"].tolist() == [1, pd.NA]
    assert table["reason"].tolist() == ["diverged", "failed"]
    assert rungs_of(table) == [8]


def test_equal_losses_are_placed_by_age() -> None:
    table = outcomes([standing(n, {8: 1.0}, "pruned") for n in (2, 1, 0)], [])
    assert table["place"].tolist() == [1, 2, 3]
    assert [reason.split(": ")[1] for reason in table["reason"]] == ["1st of 3", "2nd of 3", "3rd of 3"]


@pytest.mark.parametrize("names", [[], NAMES])
def test_no_trials_give_a_table_without_rows(names: list[str]) -> None:
    table = outcomes([], names)
    assert len(table) == 0
    assert names_of(table) == names
    assert rungs_of(table) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (10, "10th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (22, "22nd"),
        (101, "101st"),
        (111, "111th"),
    ],
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text


def test_the_ceiling_leaves_out_a_loss_that_would_flatten_the_others() -> None:
    usual = [3.0, 3.1, 3.2, 3.4]
    assert ceiling_of(pd.DataFrame({8: [*usual, 40.0], 24: [2.0, 2.1, np.nan, np.nan, np.nan]})) == 3.4
    assert ceiling_of(pd.DataFrame({8: [*usual, 3.8]})) == 3.8
    assert ceiling_of(pd.DataFrame({8: [3.0]})) == 3.0
    # Few see the first rung, most see later ones: its losses are high, not far out.
    assert ceiling_of(pd.DataFrame({8: [6.0, 6.1], 24: [2.0, 2.1], 72: [1.5, 1.6], 216: [1.3, 1.3]})) == 6.1
