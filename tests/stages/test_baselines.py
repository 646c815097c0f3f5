"""Baselines through a backend: each row judged, the model asked once, and what an engine can't do told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from sweep.backends.inline import Inline
from sweep.data.baselines import Baseline, Canned, FewShot, Nearest, ZeroShot
from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.errors import ConfigError
from sweep.evaluation.objective import MetricObjective, Objective
from sweep.evaluation.outcomes import Judge
from sweep.stages.baselines import Baselines, Tried
from sweep.stages.yardstick import Yardstick
from sweep.types import Capacity, Job, Progress, Prompt, Reply, Report, RowLoss, Source, Trial, View
from tests.recipes import DEFAULTS
from tests.stages.finished import LOSS


def row(number: int) -> Example:
    turns = (
        Message(role="user", content=f"question {number} about {'tents' if number % 2 else 'stoves'}"),
        Message(role="assistant", content=f"answer {number}"),
    )
    return Example(id=f"row-{number}", messages=turns, intent=None, required=(), forbidden=(), slices={})


ROWS = tuple(row(number) for number in range(60))
DATA = DataSet(
    examples={"train": ROWS[:30], "validation": ROWS[30:], "confirm": (), "test": (), "golden": ()},
    groups={},
    fingerprint="rows",
    notes=(),
)
BASE = Trial(id="base", number=None, recipe=DEFAULTS, seed=0, base="echo-1")
MODES = Literal["answers", "silent", "fails"]


class Echo:
    """Answers each prompt with its last turn in capitals, and scores two rows."""

    def __init__(self, mode: MODES = "answers") -> None:
        self.mode = mode
        self.jobs: list[Job] = []

    def run(self, source: Source) -> Iterator[Progress | Report]:
        while isinstance(job := source.next(Capacity()), Job):
            self.jobs.append(job)
            yield self._report(job)

    def close(self) -> None:
        pass

    def _report(self, job: Job) -> Report:
        assert (job.start, job.stop, job.checkpoint) == (0, 0, None), "the base model"
        failed = self.mode == "fails"
        prompts = job.asked.prompts if job.asked else ()
        replies = tuple(
            Reply(p.row, p.turns[-1][1].upper(), len(p.turns), 1, 0.5, ended=False) for p in prompts
        )
        return Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=0,
            state="failed" if failed else "reached",
            validation_loss=None if failed else 2.0,
            rows=() if failed else (RowLoss("row-30", 6.0, 2), RowLoss("row-31", 2.0, 2)),
            replies=replies if self.mode == "answers" else (),
            error="out of memory; choose a smaller model" if failed else None,
        )


ALL: dict[str, Baseline] = {
    "canned": Canned(text="We will call you."),
    "nearest": Nearest(),
    "zero_shot": ZeroShot(),
    "few_shot": FewShot(examples=2, retrieved=True, characters=1000),
}


class Heard:
    """A scorer that hears what was said: 1 for an answer of the train split, else 0."""

    def __init__(self) -> None:
        self.replies: list[str] = []

    def __call__(self, example: Example, reply: str) -> float:
        self.replies.append(reply)
        return float(reply in {row.response for row in ROWS[:30]})


@dataclass(frozen=True)
class Slower:
    """Gives its text to all, and takes longer each time."""

    text: str
    seconds: Iterator[float]

    @property
    def description(self) -> str:
        return "slower and slower"

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        seconds = next(self.seconds)
        first, *rest = asked
        return (first, *(Reply(prompt.row, self.text, 0, 0, seconds, ended=True) for prompt in rest))


COPIES = MetricObjective(metric="heard", rung_metric="loss", escalation=(), proxy="heard", labels=None)


def ask(
    folder: Path,
    engine: Echo,
    ways: dict[str, Baseline] = ALL,
    *,
    objective: Objective[Any] = COPIES,
    heard: Heard | None = None,
    data: DataSet = DATA,
    rows: int | None = 5,
    base: Trial = BASE,
    max_tokens: int = 64,
    names: Sequence[str] | None = None,
) -> tuple[Tried, ...]:
    scorers = {"heard": heard or Heard()}
    judged = isinstance(objective, MetricObjective)
    yardstick = Yardstick(
        objective=objective,
        judge=Judge(objective, scorers, ROWS[:2]) if judged else None,  # type: ignore[arg-type]
        data=data,
        reply_tokens=max_tokens,
        metrics={},
    )
    return Baselines(
        ways=ways,
        yardstick=yardstick,
        backend=Inline(make_engine=lambda: engine),
        base=base,
        path=folder / "baselines.json",
    ).tried(View("validation", rows), names)


def names_of(tried: Sequence[Tried]) -> list[str]:
    return [one.name for one in tried]


def said(folder: Path, ways: dict[str, Baseline]) -> list[str]:
    """What the judge heard of it first; then it hears answers, to tell what a random one scores."""
    heard = Heard()
    ask(folder, Echo(), ways, heard=heard)
    return heard.replies[:5]


def asked_of(engine: Echo) -> list[str]:
    return [job.id for job in engine.jobs]


def test_each_baseline_is_judged_on_each_row_of_the_view_best_first(tmp_path: Path) -> None:
    engine = Echo()
    tried = ask(tmp_path, engine)
    assert names_of(tried) == ["nearest", "canned", "zero_shot", "few_shot"]
    assert [one.measured.score.value for one in tried] == [1.0, 0.0, 0.0, 0.0]
    for one in tried:
        assert [row for row, _, _ in one.measured.rows] == [f"row-{number}" for number in range(30, 35)]
        assert one.description == ALL[one.name].description
        assert not one.succeeds, "no limit was set"
    read = {one.name: one.measured.score.metrics["prompt_tokens"] for one in tried}
    assert read == {"canned": 0, "nearest": 0, "zero_shot": 1, "few_shot": 5}, "two examples and the question"
    assert asked_of(engine) == ["baseline/zero_shot", "baseline/few_shot"]
    assert [job.trial.id for job in engine.jobs] == asked_of(engine)
    assert {job.trial.number for job in engine.jobs} == {None}


def test_the_models_replies_are_what_is_judged(tmp_path: Path) -> None:
    expected = [row.prompt.upper() for row in ROWS[30:35]]
    assert said(tmp_path, {"zero_shot": ZeroShot()}) == expected
    assert said(tmp_path, {"zero_shot": ZeroShot()}) == expected, "also as they were kept"


def test_only_those_named_are_asked(tmp_path: Path) -> None:
    engine = Echo()
    assert names_of(ask(tmp_path, engine, names=["few_shot"])) == ["few_shot"]
    assert asked_of(engine) == ["baseline/few_shot"]


def test_an_objective_that_needs_no_replies_has_the_base_models_own_loss(tmp_path: Path) -> None:
    engine = Echo()
    (tried,) = ask(tmp_path, engine, objective=LOSS)
    assert (tried.name, tried.measured.score.value) == ("untrained", 2.0)
    assert tried.measured.rows == (("row-30", 6.0, 2), ("row-31", 2.0, 2))
    (job,) = engine.jobs
    assert (job.evaluation, job.asked) == (View("validation", 5), None)
    again = Echo()
    assert ask(tmp_path, again, objective=LOSS) == (tried,)
    assert again.jobs == []


def test_a_base_model_that_can_not_be_scored_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(tmp_path, Echo("fails"), objective=LOSS) == ()
    assert caplog.messages == ["baseline.untrained is left out: out of memory; choose a smaller model"]


def test_a_second_start_asks_nothing_again(tmp_path: Path) -> None:
    first, engine = ask(tmp_path, Echo()), Echo()
    second = ask(tmp_path, engine)
    assert engine.jobs == []
    assert names_of(second) == names_of(first)
    assert [one.measured.rows for one in second] == [one.measured.rows for one in first]
    assert second[2:] == first[2:]


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"max_tokens": 65}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"base": replace(BASE, base="echo-2")}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"data": replace(DATA, fingerprint="other")}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"rows": 6}, ["baseline/zero_shot", "baseline/few_shot"]),
        (
            {"ways": {**ALL, "few_shot": FewShot(examples=1, retrieved=True, characters=1000)}},
            ["baseline/few_shot"],
        ),
        ({"ways": {**ALL, "more": ZeroShot()}}, ["baseline/more"]),
        ({"base": replace(BASE, recipe=replace(DEFAULTS, lora_rank=4))}, []),
    ],
)
def test_what_was_changed_is_asked_again(
    tmp_path: Path, changed: dict[str, object], again: list[str]
) -> None:
    ask(tmp_path, Echo())
    engine = Echo()
    ask(tmp_path, engine, **changed)  # type: ignore[arg-type]
    assert asked_of(engine) == again


def test_replies_of_baselines_not_chosen_now_are_kept(tmp_path: Path) -> None:
    ask(tmp_path, Echo())
    ask(tmp_path, Echo(), {"other": FewShot(examples=1, retrieved=False, characters=900)})
    engine = Echo()
    ask(tmp_path, engine)
    assert engine.jobs == []


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("silent", "the engine gave 0 replies to 5 prompts"),
        ("fails", "out of memory; choose a smaller model"),
    ],
)
def test_a_baseline_without_replies_is_left_out_and_told(
    tmp_path: Path, mode: MODES, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert names_of(ask(tmp_path, Echo(mode))) == ["nearest", "canned"]
    assert caplog.messages == [f"baseline.{name} is left out: {told}" for name in ("zero_shot", "few_shot")]
    engine = Echo()
    assert sorted(names_of(ask(tmp_path, engine))) == sorted(ALL)
    assert len(engine.jobs) == 2, "it is asked at the next start"


def test_without_a_model_none_is_started(tmp_path: Path) -> None:
    engine = Echo()
    assert names_of(ask(tmp_path, engine, {"nearest": Nearest()})) == ["nearest"]
    assert engine.jobs == []


@dataclass(frozen=True)
class CopyOrAsk:
    """A baseline of one's own: a reply where it knows one, the model otherwise."""

    wrong: bool = False
    description: str = "copies what it knows"

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        given = tuple(
            Reply(p.row, "tents!", 0, 0, 0.0, ended=True) if "tents" in p.turns[-1][1] else p for p in asked
        )
        return given[::-1] if self.wrong else given


def test_a_baseline_may_ask_for_some_rows_only(tmp_path: Path) -> None:
    assert said(tmp_path, {"own": CopyOrAsk()}) == [
        "QUESTION 30 ABOUT STOVES",
        "tents!",
        "QUESTION 32 ABOUT STOVES",
        "tents!",
        "QUESTION 34 ABOUT STOVES",
    ]


def test_a_baseline_that_answers_other_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^baseline\.own: CopyOrAsk gave 5 answers to 5 rows; there must be"
    ):
        ask(tmp_path, Echo(), {"own": CopyOrAsk(wrong=True)})


def test_a_copied_reply_is_as_slow_on_every_start(tmp_path: Path) -> None:
    seconds = iter((2.0, 3.0, 5.0))

    def slowest(text: str) -> float:
        (tried,) = ask(tmp_path, Echo(), {"slower": Slower(text, seconds)})
        return tried.measured.score.metrics["p95_seconds"]

    first = slowest("answer 1")
    assert first == pytest.approx(2.0)
    assert slowest("answer 1") == first
    assert slowest("answer 2") == pytest.approx(5.0), "another way's reply is timed anew"


def test_what_is_copied_from_the_rows_is_measured_the_same_on_every_start(tmp_path: Path) -> None:
    ways: dict[str, Baseline] = {"canned": Canned(text=None), "nearest": Nearest()}
    assert ask(tmp_path, Echo(), ways) == ask(tmp_path, Echo(), ways)
