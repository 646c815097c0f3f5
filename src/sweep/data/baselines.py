"""The simpler ways that a trained model has to beat.

Each class is one file of `conf/baseline/`; its keys are the fields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np

from sweep.data.documents import passages
from sweep.data.example import Example
from sweep.data.retrieve import Retriever
from sweep.types import Prompt, Reply


class Baseline(Protocol):
    """A way to answer without training, made of the train split's rows alone.

    `answers` gives for each row asked, in that order, a finished reply, or the prompt that the base model is
    to answer in its place. It is not told the rows' own answers; a row that stands in the train split as well
    must not be used for itself. The same rows and seed give the same answers. description: in a line, what it
    is and what it costs.
    """

    @property
    def description(self) -> str: ...

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]: ...


def question(row: Example) -> Prompt:
    """What a row asks, its system prompt included and its answer left out."""
    return Prompt(row.id, tuple((turn.role, turn.content) for turn in row.messages[:-1]))


@dataclass(frozen=True, kw_only=True)
class Canned:
    """The same reply to all: `text`, or where it is None the train split's most central answer."""

    text: str | None

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise ValueError(
                f"needs text that says something, or null for the most central answer, got {self.text!r}"
            )

    @property
    def description(self) -> str:
        return "one reply to whatever is asked; costs nothing"

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        answers = [row.response for row in train]
        text = self.text or answers[Retriever(answers).central()]
        return _copied(asked, lambda prompt: text)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The answer of the train row whose question is most like the one asked."""

    @property
    def description(self) -> str:
        return "the answer to the most similar training question, copied; costs a search in the training rows"

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        rows = _Rows(train)
        return _copied(asked, lambda prompt: rows.like(prompt, 1)[0].response)


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """The base model, asked as the trained one will be."""

    @property
    def description(self) -> str:
        return "the base model with the system prompt alone; costs no preparation"

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        return tuple(asked)


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """The base model, shown `examples` train rows as earlier turns.

    retrieved: those whose questions are most like the one asked, the most like last; otherwise the same for
    all, chosen to cover the train split, with answers of middling length. characters: of the longest prompt;
    rows that don't fit are left out, the least alike or least telling first, the question never.
    """

    examples: int
    retrieved: bool
    characters: int

    def __post_init__(self) -> None:
        _require(examples=self.examples, characters=self.characters)

    @property
    def description(self) -> str:
        which = "most like the question" if self.retrieved else "the same for all"
        return (
            f"the base model, shown training rows, {which}, {self.examples} at most; costs a longer prompt "
            "for each reply"
        )

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        if self.retrieved:
            rows = _Rows(train)
            return tuple(self._shown(prompt, rows.like(prompt, self.examples)) for prompt in asked)
        fixed = _telling(train, self.examples, seed=seed)
        return tuple(self._shown(prompt, [row for row in fixed if row.id != prompt.row]) for prompt in asked)

    def _shown(self, prompt: Prompt, rows: Sequence[Example]) -> Prompt:
        sizes = [len(row.prompt) + len(row.response) for row in rows]
        fitting = rows[: _fitting(sizes, self.characters - _size(prompt))]
        turns = [
            turn for row in reversed(fitting) for turn in (("user", row.prompt), ("assistant", row.response))
        ]
        system = [turn for turn in prompt.turns[:1] if turn[0] == "system"]
        return Prompt(prompt.row, (*system, *turns, *prompt.turns[len(system) :]))


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """The base model with `notes` found texts in its system prompt, the most like the question first.

    Train rows, or passages of the `documents` folder. A row without a system prompt has them before its last
    question, as its chat template may know no system role. instruction: stands above them. characters: of
    the longest prompt; notes that don't fit are left out, the least alike first, the question never.
    """

    notes: int
    instruction: str
    documents: str | None
    characters: int

    def __post_init__(self) -> None:
        _require(notes=self.notes, characters=self.characters)
        if self.documents is not None:
            passages(self.documents)

    @property
    def description(self) -> str:
        source = "training rows" if self.documents is None else f"passages of {self.documents}"
        return (
            f"the base model with the {source} most like the question as notes, {self.notes} at most; costs "
            "a longer prompt for each reply"
        )

    def answers(
        self, asked: Sequence[Prompt], train: Sequence[Example], *, seed: int
    ) -> tuple[Prompt | Reply, ...]:
        find = self._search(train)
        return tuple(self._noted(prompt, find(prompt)) for prompt in asked)

    def _search(self, train: Sequence[Example]) -> Callable[[Prompt], list[str]]:
        if self.documents is None:
            rows = _Rows(train)
            return lambda prompt: [
                f"Question: {row.prompt}\nAnswer: {row.response}" for row in rows.like(prompt, self.notes)
            ]
        texts = passages(self.documents)
        retriever = Retriever(texts)
        return lambda prompt: [texts[i] for i in retriever.nearest(_asked(prompt), self.notes)]

    def _noted(self, prompt: Prompt, notes: Sequence[str]) -> Prompt:
        gap = "\n\n"
        room = self.characters - _size(prompt) - len(self.instruction + gap)
        fitting = notes[: _fitting([len(note + gap) for note in notes], room)]
        if not fitting:
            return prompt
        added = gap.join([self.instruction, *fitting])
        turns = [*prompt.turns]
        (first, content), (last, asked) = turns[0], turns[-1]
        if first == "system":
            turns[0] = (first, content + gap + added)
        else:
            turns[-1] = (last, added + gap + asked)
        return Prompt(prompt.row, tuple(turns))


class _Rows:
    """The train split's rows by how like a prompt their questions are; a prompt's own row is left out."""

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train
        self._retriever = _over(tuple(row.prompt for row in train))

    def like(self, prompt: Prompt, k: int) -> list[Example]:
        """The `k` most like it, or as many as there are; the most like first."""
        found = (self._train[i] for i in self._retriever.nearest(_asked(prompt), k + 1))
        return [row for row in found if row.id != prompt.row][:k]


@lru_cache(maxsize=1)
def _over(questions: tuple[str, ...]) -> Retriever:
    """A search in the train split's questions, which several baselines share."""
    return Retriever(questions)


def _telling(train: Sequence[Example], k: int, *, seed: int) -> list[Example]:
    """`k` rows that cover the train split's questions, without those of the shortest and longest answers."""
    lengths = [len(row.response) for row in train]
    low, high = np.quantile(lengths, (0.25, 0.75))
    middling = [i for i, length in enumerate(lengths) if low <= length <= high]
    retriever = _over(tuple(row.prompt for row in train))
    return [train[i] for i in retriever.covering(k, middling, seed=seed)]


def _copied(asked: Sequence[Prompt], find: Callable[[Prompt], str]) -> tuple[Prompt | Reply, ...]:
    """What `find` gives for each, and the time that it takes."""
    replies = []
    for prompt in asked:
        begun = time.perf_counter()
        text = find(prompt)
        seconds = time.perf_counter() - begun
        replies.append(Reply(prompt.row, text, prompt_tokens=0, tokens=0, seconds=seconds, ended=True))
    return tuple(replies)


def _asked(prompt: Prompt) -> str:
    """All turns, one after the other, without the system prompt: as `Example.prompt`."""
    return "\n".join(content for role, content in prompt.turns if role != "system")


def _size(prompt: Prompt) -> int:
    return sum(len(content) for _, content in prompt.turns)


def _fitting(sizes: Sequence[int], room: int) -> int:
    """How many of the first fit together."""
    return sum(total <= room for total in accumulate(sizes))


def _require(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"needs {name} at least 1, got {name}={count}")
