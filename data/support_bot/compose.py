"""Conversations: one question, two in one message, or several turns, each with its scoring labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corpus import OUT_OF_SCOPE, Fact
from scene import Scene
from scoring import forbidden_entries, is_right, required_entries
from writer import Writer, joined

Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """Messages ending with the reference answer, and what that answer rests on."""

    messages: tuple[Message, ...]
    required: tuple[str, ...]
    forbidden: tuple[str, ...]
    fact: str | None

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def prompt(self) -> str:
        return "\n".join(message["content"] for message in self.messages[:-1])

    @property
    def is_sound(self) -> bool:
        """Whether the reference answer itself would be scored as right and is short enough to learn."""
        short = len(self.answer.split()) <= 75 and len(self.prompt.split()) <= 100
        return short and is_right(self.answer, required=self.required, forbidden=self.forbidden)


def conversation(turns: Sequence[str], scene: Scene) -> Conversation:
    """Alternating turns, customer first, scored by the scene's fact and context."""
    roles = ("user", "assistant")
    return Conversation(
        messages=tuple({"role": roles[at % 2], "content": text} for at, text in enumerate(turns)),
        required=tuple(required_entries(scene.fact, scene.case)),
        forbidden=tuple(forbidden_entries(scene.fact, scene.case)),
        fact=None if scene.intent.id == OUT_OF_SCOPE else scene.fact.id,
    )


def single(writer: Writer, scene: Scene, *, stories: int = 0) -> Conversation | None:
    """One question, one answer."""
    question = writer.deal(scene.fact.lines[scene.voice])
    text, named = writer.prompt(question, scene, stories=stories)
    stated = writer.statement(scene, named=named)
    return conversation((text, writer.reply(scene, [stated], named=named)), scene) if stated else None


def several(writer: Writer, scene: Scene, *, other: Scene) -> Conversation | None:
    """Two questions in one message, both answered; the first one is the main intent."""
    join = writer.phrase(f"join.{scene.voice}")[0]
    first, second = (writer.deal(side.fact.lines[scene.voice]) for side in (scene, other))
    # Two contexts may share a slot name, so the second part is filled before it joins the first.
    asked = f"{first} {join} {joined([join, second], other.values).removeprefix(join).strip()}"
    text, named = writer.prompt(asked, scene)
    stated = [writer.statement(side, named=named) for side in (scene, other)]
    if stated[0] is None or stated[1] is None:
        return None
    bridged = joined([writer.phrase("bridge")[0], stated[1]], other.values)
    answer = writer.reply(scene, [stated[0], bridged], named=named)
    both = conversation((text, answer), scene)
    required = (*both.required, *required_entries(other.fact, other.case))
    if len(required) > 3:
        return None
    return replace(
        both, required=required, forbidden=(*both.forbidden, *forbidden_entries(other.fact, other.case))
    )


def clarified(writer: Writer, scene: Scene, *, other_case: Mapping[str, str] | None) -> Conversation | None:
    """A question without its context, asked back for; with `other_case`, the customer then switches to it."""
    lines = scene.fact.lines
    vague, clarify, give = (writer.deal(lines[key]) for key in ("vague", "clarify", "give"))
    text, named = writer.prompt(vague, scene)
    stated = writer.statement(scene, named=named)
    if stated is None:
        return None
    given = writer.typed(writer.write([give], scene), scene)
    turns = [text, clarify, given, writer.reply(scene, [stated], named=named, follows=True)]
    if other_case is None:
        return conversation(turns, scene)
    return switched(writer, scene.about(scene.fact, other_case), turns=turns, named=named)


def switched(
    writer: Writer, scene: Scene, *, turns: Sequence[str], named: frozenset[str]
) -> Conversation | None:
    """`turns` continued by the same question for the scene's context."""
    stated = writer.statement(scene, named=named)
    if stated is None:
        return None
    asked = writer.typed(writer.write([writer.deal(scene.fact.lines["switch"])], scene), scene)
    return conversation([*turns, asked, writer.reply(scene, [stated], named=named, follows=True)], scene)


def compared(writer: Writer, scene: Scene, *, other_case: Mapping[str, str]) -> Conversation | None:
    """A question with its context, answered, then asked again for `other_case`."""
    opening = single(writer, scene)
    if opening is None:
        return None
    turns = [message["content"] for message in opening.messages]
    return switched(writer, scene.about(scene.fact, other_case), turns=turns, named=frozenset())


def followed_up(writer: Writer, scene: Scene, *, later: Sequence[Fact]) -> Conversation | None:
    """A question answered, then short follow-ups on other facts of the intent; the last one counts."""
    opening = single(writer, scene)
    if opening is None:
        return None
    turns = [message["content"] for message in opening.messages]
    for fact in later:
        scene = scene.about(fact, {})
        stated = writer.statement(scene, named=frozenset())
        follow = writer.deal(fact.lines["follow"])
        if stated is None:
            return None
        turns.append(writer.typed(writer.write([follow], scene), scene))
        turns.append(writer.reply(scene, [stated], named=frozenset(), follows=True))
    return conversation(turns, scene)
