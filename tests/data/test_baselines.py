"""What baselines are made of: train rows alone, never a row's own answer, in turns that a model takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.data.baselines import Baseline, Canned, FewShot, Nearest, Retrieval, ZeroShot, question
from sweep.data.encode import prompt_text
from sweep.data.example import Example, Message
from sweep.engines.model import RandomLlama
from sweep.paths import packaged_root
from sweep.targets import read_target
from sweep.types import Prompt, Reply

SUBJECTS = {
    "refund": ("get my money back for the {0} tent", "Your refund for the {0} tent is on its way"),
    "delivery": (
        "where does the parcel with the {0} stove stay",
        "The courier brings the {0} stove tomorrow",
    ),
    "account": ("reset the password of my login {0}", "We sent a link for the login {0} by mail"),
    "repair": ("mend the zip of the {0} jacket", "Our workshop mends the {0} jacket for free"),
}
NAMES = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "islet", "jetty")


def row(intent: str, name: str, *, system: str | None = "You are kind.", mark: str = "") -> Example:
    asked, answered = (text.format(name) for text in SUBJECTS[intent])
    turns = (Message(role="user", content=asked), Message(role="assistant", content=f"{answered}{mark}."))
    before = (Message(role="system", content=system),) if system else ()
    return Example(
        id=f"{intent}-{name}", messages=(*before, *turns), intent=intent, required=(), forbidden=(), slices={}
    )


TRAIN = [row(intent, name, mark=f" ({intent} {name})") for name in NAMES[:7] for intent in SUBJECTS]
HELD_OUT = [row(intent, name, mark=f" (kept secret {name})") for name in NAMES[7:] for intent in SUBJECTS]
ASKED = [question(example) for example in HELD_OUT]


def shipped() -> dict[str, Baseline]:
    nodes: dict[str, Any] = {}
    for file in sorted((packaged_root() / "conf/baseline").glob("*.yaml")):
        nodes |= yaml.safe_load(file.read_text("utf-8"))
    return {
        name: read_target(node, f"baseline.{name}", kind=Baseline).build() for name, node in nodes.items()
    }


SHIPPED = shipped()


def text_of(answer: Prompt | Reply) -> str:
    return answer.text if isinstance(answer, Reply) else "\n".join(content for _, content in answer.turns)


def prompts(baseline: Baseline, asked: list[Prompt] = ASKED, *, seed: int = 0) -> list[Prompt]:
    answers = baseline.answers(asked, TRAIN, seed=seed)
    found = [answer for answer in answers if isinstance(answer, Prompt)]
    assert len(found) == len(asked), "each is for the model to answer"
    return found


# All of them


@pytest.mark.parametrize("name", SHIPPED)
def test_each_row_is_answered_in_order_and_the_same_again(name: str) -> None:
    answers = SHIPPED[name].answers(ASKED, TRAIN, seed=3)
    assert [answer.row for answer in answers] == [example.id for example in HELD_OUT]
    again = SHIPPED[name].answers(ASKED, TRAIN, seed=3)
    assert [text_of(answer) for answer in again] == [text_of(answer) for answer in answers]
    assert "\n" not in SHIPPED[name].description


@pytest.mark.parametrize("name", SHIPPED)
def test_no_held_out_answer_is_used(name: str) -> None:
    assert not [a for a in SHIPPED[name].answers(ASKED, TRAIN, seed=0) if "kept secret" in text_of(a)]


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "canned"])
def test_a_row_of_the_train_split_is_not_told_its_own_answer(name: str) -> None:
    asked = [question(example) for example in TRAIN]
    answers = SHIPPED[name].answers(asked, TRAIN, seed=0)
    for example, answer in zip(TRAIN, answers, strict=True):
        assert example.response not in text_of(answer)


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "few_shot_retrieved", "retrieval"])
def test_turns_alternate_and_end_with_what_the_row_asks(name: str) -> None:
    for example, prompt in zip(HELD_OUT, prompts(SHIPPED[name]), strict=True):
        roles = [role for role, _ in prompt.turns]
        pairs = (len(roles) - 2) // 2
        assert roles == ["system", *["user", "assistant"] * pairs, "user"]
        assert prompt.turns[0][1].startswith("You are kind.")
        assert prompt.turns[-1] == ("user", example.prompt)
        assert pairs == (3 if name.startswith("few_shot") else 0)


def test_the_chat_template_takes_them() -> None:
    tokenizer = RandomLlama(hidden_size=8, layers=1, heads=1, seed=0, dtype="float32").load().tokenizer
    for baseline in SHIPPED.values():
        for answer in baseline.answers(ASKED[:2], TRAIN, seed=0):
            if isinstance(answer, Prompt):
                messages = [Message(role=role, content=text) for role, text in answer.turns]  # type: ignore[arg-type]
                written = prompt_text(messages, tokenizer)
                places = [written.index(content) for _, content in answer.turns]
                assert places == sorted(places)


# Copies


def test_a_canned_reply_is_the_given_text() -> None:
    replies = Canned(text="We will call you.").answers(ASKED, TRAIN, seed=0)
    assert {text_of(reply) for reply in replies} == {"We will call you."}


def test_without_a_text_it_is_the_answer_most_like_the_others() -> None:
    train = [row(intent, "amber") for intent in SUBJECTS] + [row("refund", name) for name in NAMES]
    (reply,) = Canned(text=None).answers(ASKED[:1], train, seed=0)
    assert isinstance(reply, Reply)
    assert "Your refund for the" in reply.text
    assert reply.text in [example.response for example in train]


def test_the_nearest_copies_the_answer_to_the_most_similar_question() -> None:
    asked = [question(row("repair", "cedar")), question(row("account", "ember"))]
    asked = [Prompt(f"other-{i}", prompt.turns) for i, prompt in enumerate(asked)]
    answers = Nearest().answers(asked, TRAIN, seed=0)
    assert [text_of(answer) for answer in answers] == [
        "Our workshop mends the cedar jacket for free (repair cedar).",
        "We sent a link for the login ember by mail (account ember).",
    ]
    for answer in answers:
        assert isinstance(answer, Reply), "no model is asked"
        assert (answer.prompt_tokens, answer.tokens, answer.ended) == (0, 0, True)
        assert 0 < answer.seconds < 10


def test_the_system_prompt_decides_nothing() -> None:
    system = " ".join(example.prompt for example in TRAIN if example.intent == "refund")
    asked = Prompt("mine", (("system", system), ("user", "mend the zip of my jacket")))
    (copied,) = Nearest().answers([asked], TRAIN, seed=0)
    assert "Our workshop mends" in text_of(copied)


# Few shots


def few(examples: int = 3, *, retrieved: bool, characters: int = 4000) -> FewShot:
    return FewShot(examples=examples, retrieved=retrieved, characters=characters)


def test_fixed_examples_are_the_same_for_all_and_of_different_subjects() -> None:
    shown = {prompt.turns[1:-1] for prompt in prompts(few(4, retrieved=False))}
    assert len(shown) == 1
    answers = [content for role, content in shown.pop() if role == "assistant"]
    intents = [example.intent for answer in answers for example in TRAIN if example.response == answer]
    assert sorted(map(str, intents)) == sorted(SUBJECTS)


def test_fixed_examples_have_answers_of_middling_length() -> None:
    stretched = [
        replace(example, messages=(*example.messages[:-1], Message(role="assistant", content="x" * length)))
        for length, example in enumerate(TRAIN, start=1)
    ]
    (prompt,) = few(5, retrieved=False).answers(ASKED[:1], stretched, seed=0)
    assert isinstance(prompt, Prompt)
    lengths = sorted(len(content) for role, content in prompt.turns if role == "assistant")
    assert len(lengths) == 5
    assert len(TRAIN) / 4 <= lengths[0] <= lengths[-1] <= 1 + len(TRAIN) * 3 / 4


def test_retrieved_examples_are_alike_the_most_like_last() -> None:
    asked = Prompt("mine", (("user", "mend the zip of the dune jacket please"),))
    (prompt,) = prompts(few(3, retrieved=True), [asked])
    assert [role for role, _ in prompt.turns] == ["user", "assistant"] * 3 + ["user"]
    assert prompt.turns[-3] == ("user", "mend the zip of the dune jacket")
    assert all("mend the zip" in content for role, content in prompt.turns if role == "user")


def test_multi_turn_examples_become_one_question_and_one_answer() -> None:
    turns = (
        Message(role="assistant", content="Hello, how can I help?"),
        Message(role="user", content="my tent"),
        Message(role="assistant", content="What about it?"),
        Message(role="user", content="it leaks"),
        Message(role="assistant", content="Send it in."),
    )
    talk = Example(id="talk", messages=turns, intent=None, required=(), forbidden=(), slices={})
    asked = Prompt("mine", (("user", "my tent leaks"),))
    (prompt,) = few(1, retrieved=True).answers([asked], [talk, *TRAIN], seed=0)
    assert isinstance(prompt, Prompt)
    assert prompt.turns == (
        ("user", "Hello, how can I help?\nmy tent\nWhat about it?\nit leaks"),
        ("assistant", "Send it in."),
        ("user", "my tent leaks"),
    )


@pytest.mark.parametrize("retrieved", [True, False])
def test_what_does_not_fit_is_left_out_the_least_alike_first(retrieved: bool) -> None:
    (whole,) = prompts(few(4, retrieved=retrieved), ASKED[:1])
    question_size = sum(len(content) for _, content in ASKED[0].turns)
    for kept in range(5):
        least = ASKED[0].turns[:1] + whole.turns[1 + 2 * (4 - kept) :]
        size = sum(len(content) for _, content in least)
        (prompt,) = prompts(few(4, retrieved=retrieved, characters=size), ASKED[:1])
        assert prompt.turns == least
    (prompt,) = prompts(few(4, retrieved=retrieved, characters=question_size - 1), ASKED[:1])
    assert prompt == ASKED[0], "the question is never left out"


# Retrieval


def noted(documents: str | None = None, *, notes: int = 2, characters: int = 4000) -> Retrieval:
    return Retrieval(notes=notes, instruction="Use these notes.", documents=documents, characters=characters)


def test_notes_stand_in_the_system_prompt_the_most_like_first() -> None:
    turns = (("system", "You are kind."), ("user", "mend the zip of the dune jacket please"))
    (prompt,) = prompts(noted(), [Prompt("mine", turns)])
    assert prompt.turns[1:] == turns[1:]
    head, instruction, first, second = prompt.turns[0][1].split("\n\n")
    assert (head, instruction) == ("You are kind.", "Use these notes.")
    assert first == (
        "Question: mend the zip of the dune jacket\n"
        "Answer: Our workshop mends the dune jacket for free (repair dune)."
    )
    assert second.startswith("Question: mend the zip of the ")


def test_a_row_without_a_system_prompt_has_notes_before_its_last_question() -> None:
    turns = (("user", "hello"), ("assistant", "Hello."), ("user", "mend the zip of the dune jacket please"))
    (prompt,) = prompts(noted(notes=1), [Prompt("mine", turns)])
    assert prompt.turns[:2] == turns[:2]
    role, content = prompt.turns[2]
    assert role == "user"
    assert content.startswith("Use these notes.\n\nQuestion: mend the zip of the dune jacket\nAnswer: ")
    assert content.endswith("\n\nmend the zip of the dune jacket please")


def test_notes_may_come_from_documents(tmp_path: Path) -> None:
    (tmp_path / "zips.md").write_text("Zips of jackets are mended for free.")
    (tmp_path / "stoves.md").write_text("Stoves are sent by courier.")
    (prompt,) = prompts(noted(str(tmp_path), notes=1), [Prompt("a", (("user", "mend my zip"),))])
    assert prompt.turns[0][1] == ("Use these notes.\n\nZips of jackets are mended for free.\n\nmend my zip")


def test_notes_that_do_not_fit_are_left_out() -> None:
    (whole,) = prompts(noted(notes=3), ASKED[:1])
    notes = whole.turns[0][1].split("\n\n")
    for kept in (2, 1):
        system = "\n\n".join(notes[: 2 + kept])
        least = len(system) + len(ASKED[0].turns[1][1])
        (fits,) = prompts(noted(notes=3, characters=least), ASKED[:1])
        assert fits.turns == (("system", system), ASKED[0].turns[1])
        (lacks,) = prompts(noted(notes=3, characters=least - 1), ASKED[:1])
        assert len(lacks.turns[0][1]) < len(system)
    assert lacks == ASKED[0], "no heading without a note"


def test_zero_shot_asks_what_the_row_asks() -> None:
    assert prompts(ZeroShot()) == ASKED
