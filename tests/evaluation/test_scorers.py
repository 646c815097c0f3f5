from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from sweep.data.example import Example
from sweep.evaluation.scorers import Chrf, Exact, Facts, RougeL, scores
from tests.evaluation.tickets import example

DATA = Path(__file__).parents[2] / "data/support_bot/support_bot.jsonl"
PAIRS = [
    ("You may return it within 45 days.", "Returns are possible for 45 days."),
    ("The cat sat on the mat", "the cat is on the mat"),
    ("nothing alike", "xyz"),
    ("", "An answer."),
    ("Same words.", "Same words."),
]


def facts(reply: str, required: list[str], forbidden: list[str] | None = None) -> float | None:
    return Facts()(example(required=required, forbidden=forbidden or []), reply)


@pytest.mark.parametrize(
    ("reply", "entry", "held"),
    [
        ("It takes 2 days.", "2 days|two days", 1),
        ("It takes TWO\n  days.", "2 days|two days", 1),
        ("It takes 12 days.", "2 days|two days", 0),
        ("It costs 4.90.", "4.9", 0),
        ("It costs 1,500 EUR.", "500", 0),
        ("It costs 500, all told.", "500", 1),
        ("Before 14:30, please.", "14:30", 1),
        ("Before 14:30, please.", "30", 0),
        ("They were punctured.", "pierce|punctur", 1),
        ("An unused tent.", "used", 0),
        ("I can\u2019t say.", "can't", 1),
        ("That is 15% off.", "15%", 1),
        ("That is 115% of it.", "15%", 0),
        ("A non-refundable fee.", "refund", 1),
        ("Anything.", "||", 0),
    ],
)
def test_a_phrase_is_found_where_a_word_or_number_begins(reply: str, entry: str, held: int) -> None:
    assert facts(reply, [entry]) == held


def test_all_required_and_no_forbidden_entry() -> None:
    required, forbidden = ["empty|emptied", "punctur"], ["post them|mail them"]
    assert facts("Emptied and punctured.", required, forbidden) == 1
    assert facts("Emptied.", required, forbidden) == 0
    assert facts("Emptied and punctured; then post them.", required, forbidden) == 0
    assert facts("Whatever.", [], ["post them"]) == 1


def test_a_row_without_phrases_is_not_scored_by_facts() -> None:
    assert facts("Whatever.", []) is None
    rows = [example("a"), example("b", required=["two"])]
    assert scores({"facts": Facts(), "exact": Exact()}, rows, ["x", "two"]) == (
        {"exact": 0.0},
        {"facts": 1.0, "exact": 0.0},
    )


def test_every_shipped_answer_resolves_its_row_and_hardly_any_other_one() -> None:
    rows = [shipped(json.loads(line)) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert [row.id for row in rows if Facts()(row, row.response) != 1] == []
    shifted = zip(rows, [*rows[7:], *rows[:7]], strict=True)
    assert sum(Facts()(row, other.response) or 0 for row, other in shifted) < 0.03 * len(rows)


def shipped(cells: dict) -> Example:
    return example(
        cells["id"],
        cells["messages"][-1]["content"],
        required=cells["required"],
        forbidden=cells["forbidden"],
    )


@pytest.mark.parametrize(("reply", "reference"), PAIRS)
def test_chrf_and_rouge_are_the_libraries_own(reply: str, reference: str) -> None:
    row = example(answer=reference)
    assert Chrf()(row, reply) == pytest.approx(sacrebleu.sentence_chrf(reply, [reference]).score / 100)
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False).score(reference, reply)
    assert RougeL()(row, reply) == pytest.approx(rouge["rougeL"].fmeasure)


def test_rouge_l_by_hand() -> None:
    # "the cat on the mat" of 6 and 6 words.
    assert RougeL()(example(answer=PAIRS[1][1]), PAIRS[1][0]) == pytest.approx(5 / 6)


def test_exact_counts_neither_case_nor_white_space() -> None:
    assert Exact()(example(answer="Yes, do."), " yes,\ndo. ") == 1
    assert Exact()(example(answer="Yes, do."), "Yes do.") == 0


def test_a_scorer_that_fails_at_one_row_is_left_out_of_all_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raising(row: Example, reply: str) -> float:
        return 1 / len(reply)

    rows = [example("a"), example("b")]
    faulty = {
        "raising": raising,
        "nan": lambda row, reply: math.nan,
        "large": lambda row, reply: 37.0,
        "text": lambda row, reply: "good",
        "fair": lambda row, reply: reply == "x",
    }
    with caplog.at_level(logging.WARNING, "sweep.evaluation"):
        for _ in range(3):
            assert scores(faulty, rows, ["x", ""]) == ({"fair": 1.0}, {"fair": 0.0})
    told = [message.split(", so")[0] for message in caplog.messages]
    assert told == [
        "scorer.raising raised ZeroDivisionError",
        "scorer.nan gave nan",
        "scorer.large gave 37.0",
        "scorer.text raised ValueError",
    ]
    assert "1 / len(reply)" in caplog.text, "the traceback shows where"
