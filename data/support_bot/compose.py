"""Conversations put together from the corpus: what the customer writes, what the retailer answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corpus import OUT_OF_SCOPE, Fact, Intent, Lines, placeholders
from scoring import forbidden_entries, is_right, required_entries
from slots import draw_slots
from typos import misspell

Message = dict[str, str]

FIXED_STARTS = (
    "{", '"', "I ", "I'", "EU ", "M ", "Sunday", "Thursday", "Northern Ireland", "Trail Points", "My Orders",
    "Size M", "Fernhill",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Who writes where, in which style, about which fact in which context.

    `voice` is the written style beneath: a misspelt message is a casual, terse or formal one mistyped.
    """

    intent: Intent
    fact: Fact
    case: Mapping[str, str]
    style: str
    voice: str
    channel: str
    group: str
    values: Mapping[str, str]

    def about(self, fact: Fact, case: Mapping[str, str]) -> Scene:
        """The same customer on another fact or context."""
        values = {name: text for name, text in self.values.items() if name not in self.case}
        return replace(self, fact=fact, case=case, values={**values, **case})


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


def as_sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def as_continuation(text: str) -> str:
    """`text` with a small first letter, unless it starts with a name, a slot or "I"."""
    return text if text.startswith(FIXED_STARTS) else text[:1].lower() + text[1:]


def joined(templates: Sequence[str], values: Mapping[str, str]) -> str:
    """The templates filled and joined, each a sentence unless the one before ends in a comma or colon."""
    parts: list[str] = []
    for template in templates:
        continues = bool(parts) and parts[-1].endswith((",", ":"))
        text = (as_continuation(template) if continues else template).format(**values)
        parts.append(text if continues else as_sentence(text))
    return " ".join(parts)


class Writer:
    """Draws lines evenly: each list is dealt like a shuffled deck, and reshuffled when used up."""

    def __init__(self, rng: random.Random, phrasings: Lines) -> None:
        self.rng = rng
        self.phrasings = phrasings
        self.decks: dict[tuple[str, ...], list[str]] = {}

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def deal(self, lines: Sequence[str], *, known: frozenset[str] | None = None) -> str | None:
        """The next of `lines` whose slots are all `known` (None: any); None where no line fits."""
        key = tuple(lines)
        for _ in range(2):
            deck = self.decks.setdefault(key, [])
            for line in deck:
                if known is None or placeholders(line) <= known:
                    deck.remove(line)
                    return line
            deck[:] = self.rng.sample(key, len(key))
        return None

    def phrase(self, key: str, *, share: float = 1.0) -> list[str]:
        """One line of the shared phrasings in `share` of the calls, else nothing."""
        if not self.chance(share) or key not in self.phrasings:
            return []
        line = self.deal(self.phrasings[key])
        return [line] if line else []

    def write(self, templates: Sequence[str], scene: Scene) -> str:
        """The templates filled in and joined into one text of sentences."""
        if scene.voice == "terse":
            return " ".join(template.format(**scene.values) for template in templates)
        return joined(templates, scene.values)

    def typed(self, text: str, scene: Scene) -> str:
        """`text` as this customer types it."""
        return misspell(self.rng, text) if scene.style == "misspelt" else text

    def situation(self, scene: Scene, *, share: float) -> list[str]:
        """What happened, in `share` of the messages that aren't terse."""
        lines = scene.intent.lines_for(scene.fact, "situation")
        if scene.voice == "terse" or not lines or not self.chance(share):
            return []
        line = self.deal(lines)
        return [line] if line else []

    def opener(self, scene: Scene) -> list[str]:
        """How the message starts, by channel and then by voice."""
        if scene.channel == "phone":
            return self.phrase("open.phone", share=0.6)
        if scene.channel == "social":
            return self.phrase("open.social", share=0.6)
        return self.phrase(f"open.{scene.voice}", share=0.55 if scene.voice == "angry" else 0.25)

    def body(self, question: str, scene: Scene, *, stories: int) -> list[str]:
        """The templates between greeting and sign-off."""
        told = self.situation(scene, share=0.5)
        told += [line for _ in range(stories) for line in self.phrase("story")]
        asked = [*self.phrase("filler", share=0.5 if scene.channel == "phone" else 0.0), question]
        parts = [*asked, *told] if self.chance(0.25) and scene.voice != "formal" else [*told, *asked]
        clue = self.phrase(f"group.{scene.group}", share=0.18)
        return [*self.opener(scene), *clue, *parts, *self.phrase(f"tail.{scene.voice}", share=0.25)]

    def prompt(self, question: str, scene: Scene, *, stories: int = 0) -> tuple[str, frozenset[str]]:
        """The customer's message, and the slots it names."""
        if scene.voice == "terse":
            templates = [
                *self.phrase("open.social", share=0.25 if scene.channel == "social" else 0.0),
                question,
            ]
        else:
            templates = self.body(question, scene, stories=stories)
        named = frozenset().union(*map(placeholders, templates))
        text = self.typed(self.write(templates, scene), scene)
        if scene.channel != "email" or scene.voice == "terse":
            return text, named
        greeting = self.phrase(f"greet.{scene.voice}", share=0.8)
        farewell = self.phrase(f"sign.{scene.voice}", share=0.6)
        framed = [*greeting, text, *(line.format(**scene.values) for line in farewell)]
        return "\n".join(framed), named | ({"name"} if farewell else frozenset())

    def statement(self, scene: Scene, *, named: frozenset[str]) -> str | None:
        """One wording of the fact, using no slot the customer hasn't named."""
        return self.deal(scene.fact.lines["answer"], known=named | set(scene.case) | {"pointer"})

    def warm_up(self, scene: Scene, *, named: frozenset[str]) -> list[str]:
        """How the answer starts: a line that fits the topic, one that fits the tone, or none."""
        mood = self.rng.random()
        if mood < 0.3 and scene.voice != "angry":
            line = self.deal(scene.intent.lines_for(scene.fact, "feeling"), known=named)
            return [line] if line else []
        if mood > 0.75:
            return []
        key = f"reply.{scene.voice}"
        line = self.deal(scene.intent.lines.get(key) or self.phrasings[key])
        return [line] if line else []

    def reply(
        self, scene: Scene, statements: Sequence[str], *, named: frozenset[str], follows: bool = False
    ) -> str:
        """The retailer's answer around `statements`; one that `follows` in a talk skips the courtesies."""
        values = {**scene.values, "pointer": self.phrase("pointer")[0]}
        start = [] if follows else self.warm_up(scene, named=named)
        advice = self.deal(scene.intent.lines_for(scene.fact, "next"), known=named)
        end = [advice] if advice and len(statements) == 1 and self.chance(0.72) else []
        end += self.phrase(f"close.{scene.voice}", share=0.0 if follows else 0.25)
        text = joined([*start, *statements, *end], values)
        if scene.channel != "email" or follows:
            return text
        greeting = self.phrase(f"replygreet.{scene.voice}", share=0.7 if "name" in named else 0.0)
        return "\n".join(
            [*(line.format(**values) for line in greeting), text, *self.phrase("replysign", share=0.4)]
        )


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
    assert question is not None
    text, named = writer.prompt(question, scene, stories=stories)
    stated = writer.statement(scene, named=named)
    return conversation((text, writer.reply(scene, [stated], named=named)), scene) if stated else None


def several(writer: Writer, scene: Scene, other: Scene) -> Conversation | None:
    """Two questions in one message, both answered; the first one is the main intent."""
    join = writer.phrase(f"join.{scene.voice}")[0]
    first, second = (writer.deal(side.fact.lines[scene.voice]) for side in (scene, other))
    assert first is not None
    assert second is not None
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


def clarified(writer: Writer, scene: Scene, other_case: Mapping[str, str] | None) -> Conversation | None:
    """A question without its context, asked back for; with `other_case`, the customer then switches to it."""
    lines = scene.fact.lines
    drawn = [writer.deal(lines[key]) for key in ("vague", "clarify", "give", "switch")]
    vague, clarify, give, switch = (str(line) for line in drawn)
    text, named = writer.prompt(vague, scene)
    stated = writer.statement(scene, named=named)
    if stated is None:
        return None
    given = writer.typed(writer.write([give], scene), scene)
    turns = [text, clarify, given, writer.reply(scene, [stated], named=named, follows=True)]
    if other_case is None:
        return conversation(turns, scene)
    return switched(writer, scene.about(scene.fact, other_case), turns, switch, named)


def switched(
    writer: Writer, scene: Scene, turns: Sequence[str], switch: str, named: frozenset[str]
) -> Conversation | None:
    """`turns` continued by the same question for the scene's context."""
    stated = writer.statement(scene, named=named)
    if stated is None:
        return None
    asked = writer.typed(writer.write([switch], scene), scene)
    return conversation([*turns, asked, writer.reply(scene, [stated], named=named, follows=True)], scene)


def compared(writer: Writer, scene: Scene, other_case: Mapping[str, str]) -> Conversation | None:
    """A question with its context, answered, then asked again for `other_case`."""
    opening = single(writer, scene)
    switch = writer.deal(scene.fact.lines["switch"])
    if opening is None:
        return None
    turns = [message["content"] for message in opening.messages]
    return switched(writer, scene.about(scene.fact, other_case), turns, str(switch), frozenset())


def followed_up(writer: Writer, scene: Scene, later: Sequence[Fact]) -> Conversation | None:
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
        turns.append(writer.typed(writer.write([str(follow)], scene), scene))
        turns.append(writer.reply(scene, [stated], named=frozenset(), follows=True))
    return conversation(turns, scene)


def draw_scene(writer: Writer, intent: Intent, fact: Fact, style: str) -> Scene:
    """A customer, a channel and a context for `fact`."""
    rng = writer.rng
    case = rng.choice(fact.cases)
    voice = rng.choice(("casual", "casual", "casual", "terse", "formal")) if style == "misspelt" else style
    channels, weights = CHANNELS[style]
    group = rng.choices(("new", "regular", "business"), (0.34, 0.42, 0.24))[0]
    return Scene(
        intent=intent,
        fact=fact,
        case=case,
        style=style,
        voice=voice,
        channel=rng.choices(channels, weights)[0],
        group="business" if intent.id == "business_accounts" else case.get("group", group),
        values={**draw_slots(rng, item_class=fact.item_class), **case},
    )


CHANNELS = {
    "formal": (("email", "chat", "phone", "social"), (0.45, 0.25, 0.22, 0.08)),
    "casual": (("chat", "email", "social", "phone"), (0.34, 0.18, 0.2, 0.28)),
    "terse": (("chat", "social", "email"), (0.6, 0.3, 0.1)),
    "angry": (("chat", "email", "social", "phone"), (0.25, 0.25, 0.25, 0.25)),
    "misspelt": (("chat", "social", "email"), (0.5, 0.3, 0.2)),
}
