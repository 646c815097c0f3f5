"""Real scorers of MLflow, as scorers of replies."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import AssessmentError, Feedback
from mlflow.genai.scorers import Scorer, scorer

from sweep.evaluation.scorers import scores
from sweep.schema import Code
from sweep.tracking.scorer import FromMlflow
from tests.evaluation.tickets import example

ROW = example("a", "Two days.", question="How long?", required=["two"], forbidden=["three"])


@scorer
def polite(outputs: str) -> bool:
    return "please" in outputs.lower()


@scorer
def near(outputs: str, expectations: dict[str, Any]) -> float:
    words = set(expectations["expected_response"].split())
    return len(words & set(outputs.split())) / len(words)


@scorer
def told(inputs: dict[str, Any], outputs: str, expectations: dict[str, Any]) -> Feedback:
    assert inputs == {"messages": [{"role": "user", "content": "How long?"}]}
    assert (expectations["expected_facts"], expectations["forbidden"]) == (["two"], ["three"])
    return Feedback(value="yes" if "two" in outputs else "no", rationale="so it is")


@scorer
def silent(outputs: str) -> None:
    return None


@scorer
def wordy(outputs: str) -> str:
    return "rather good"


@scorer
def failed(outputs: str) -> Feedback:
    return Feedback(error=AssessmentError(error_code="DOWN", error_message="no judge"))


@scorer
def several(outputs: str) -> list[Feedback]:
    return [Feedback(name="one", value=True), Feedback(name="two", value=True)]


class Short(Scorer):
    def __call__(self, *, outputs: str) -> bool:
        return len(outputs) < 10


short = Short(name="short")


def plain(outputs: str) -> bool:
    return True


def ours(name: str) -> FromMlflow:
    return FromMlflow(function=Code(f"{__name__}.{name}"))


@pytest.mark.parametrize(
    ("name", "reply", "value"),
    [
        ("polite", "Wait, please.", 1.0),
        ("polite", "Wait.", 0.0),
        ("near", "Two weeks.", 0.5),
        ("told", "two", 1.0),
        ("told", "three", 0.0),
        ("short", "two", 1.0),
        ("short", "two or three days", 0.0),
        ("silent", "two", None),
    ],
)
def test_bools_numbers_and_words_become_numbers(name: str, reply: str, value: float | None) -> None:
    assert ours(name)(ROW, reply) == value


@pytest.mark.parametrize("name", ["wordy", "failed", "several"])
def test_anything_else_leaves_the_scorer_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert scores({f"mlflow_{name}": ours(name), "polite": ours("polite")}, [ROW], ["please"]) == (
        {"polite": 1.0},
    )
    assert f"scorer.mlflow_{name} raised" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", "to be a scorer, got a function: write @scorer"),
        ("Short", "to be a scorer, got a ModelMetaclass"),
        ("missing", "to be there .*: correct its name"),
    ],
)
def test_a_name_of_something_else_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours(name)
