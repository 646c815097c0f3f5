"""Baselines through a backend: each row answered, the model asked once, and what an engine can't do told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from sweep.backends.inline import Inline
from sweep.data.baselines import Baseline, Canned, FewShot, Nearest, ZeroShot
from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.errors import ConfigError
from sweep.stages.baselines import ask_baselines
from sweep.types import Capacity, Job, Progress, Prompt, Reply, Report, Source, Trial, View
from tests.recipes import DEFAULTS


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
    """Answers each prompt with its last turn in capitals, cut to `max_tokens` characters."""

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
        assert job.asked
        failed = self.mode == "fails"
        replies = tuple(
            Reply(p.row, p.turns[-1][1].upper()[: job.asked.max_tokens], len(p.turns), 1, 0.5, ended=False)
            for p in job.asked.prompts
        )
        return Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=0,
            state="failed" if failed else "reached",
            validation_loss=None if failed else 2.0,
            replies=replies if self.mode == "answers" else (),
            error="out of memory; choose a smaller model" if failed else None,
        )


ALL: dict[str, Baseline] = {
    "canned": Canned(text="We will call you."),
    "nearest": Nearest(),
    "zero_shot": ZeroShot(),
    "few_shot": FewShot(examples=2, retrieved=True, characters=1000),
}


def ask(
    folder: Path,
    engine: Echo,
    baselines: dict[str, Baseline] = ALL,
    *,
    data: DataSet = DATA,
    rows: int | None = 5,
    base: Trial = BASE,
    max_tokens: int = 64,
) -> dict[str, tuple[Reply, ...]]:
    return ask_baselines(
        baselines,
        data,
        View("validation", rows),
        Inline(make_engine=lambda: engine),
        base=base,
        max_tokens=max_tokens,
        path=folder / "baselines.json",
    )


def asked_of(engine: Echo) -> list[str]:
    return [job.id for job in engine.jobs]


def test_each_baseline_answers_each_row_of_the_view(tmp_path: Path) -> None:
    engine = Echo()
    replies = ask(tmp_path, engine)
    assert list(replies) == list(ALL)
    assert {name: [reply.row for reply in given] for name, given in replies.items()} == {
        name: [f"row-{number}" for number in range(30, 35)] for name in ALL
    }
    assert [reply.text for reply in replies["zero_shot"]] == [row.prompt.upper() for row in ROWS[30:35]]
    assert {reply.prompt_tokens for reply in replies["few_shot"]} == {5}, "two examples and the question"
    assert all(reply.text in {row.response for row in ROWS[:30]} for reply in replies["nearest"])
    assert asked_of(engine) == ["baseline/zero_shot", "baseline/few_shot"]
    assert [job.trial.id for job in engine.jobs] == asked_of(engine)
    assert {job.trial.number for job in engine.jobs} == {None}


def test_a_second_start_asks_nothing_again(tmp_path: Path) -> None:
    first, engine = ask(tmp_path, Echo()), Echo()
    second = ask(tmp_path, engine)
    assert engine.jobs == []
    assert {name: second[name] for name in ("zero_shot", "few_shot")} == {
        name: first[name] for name in ("zero_shot", "few_shot")
    }
    assert list(second) == list(first)


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"max_tokens": 65}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"base": replace(BASE, base="echo-2")}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"data": replace(DATA, fingerprint="other")}, ["baseline/zero_shot", "baseline/few_shot"]),
        ({"rows": 6}, ["baseline/zero_shot", "baseline/few_shot"]),
        (
            {"baselines": {**ALL, "few_shot": FewShot(examples=1, retrieved=True, characters=1000)}},
            ["baseline/few_shot"],
        ),
        ({"baselines": {**ALL, "more": ZeroShot()}}, ["baseline/more"]),
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
    assert list(ask(tmp_path, Echo(mode))) == ["canned", "nearest"]
    assert caplog.messages == [f"baseline.{name} is left out: {told}" for name in ("zero_shot", "few_shot")]
    engine = Echo()
    assert list(ask(tmp_path, engine)) == list(ALL)
    assert len(engine.jobs) == 2, "it is asked at the next start"


def test_without_a_model_none_is_started(tmp_path: Path) -> None:
    engine = Echo()
    assert list(ask(tmp_path, engine, {"nearest": Nearest()})) == ["nearest"]
    assert engine.jobs == []
    assert not (tmp_path / "baselines.json").exists()


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
    replies = ask(tmp_path, Echo(), {"own": CopyOrAsk()})
    assert [reply.text for reply in replies["own"]] == [
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
