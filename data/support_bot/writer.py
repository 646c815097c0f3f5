"""Messages put together from hand-written lines: the customer's, and the retailer's answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from corpus import Lines, placeholders
from scene import Scene
from typos import misspell

FIXED_STARTS = (
    "{", '"', "I ", "I'", "EU ", "M ", "Sunday", "Thursday", "Northern Ireland", "Trail Points", "My Orders",
    "Size M", "Fernhill",
)  # fmt: skip


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

    def deal(self, lines: Sequence[str]) -> str:
        """The next of `lines`."""
        key = tuple(lines)
        deck = self.decks.setdefault(key, [])
        if not deck:
            deck[:] = self.rng.sample(key, len(key))
        return deck.pop()

    def deal_fitting(self, lines: Sequence[str], *, named: frozenset[str]) -> str | None:
        """The next of `lines` that names no slot beyond `named`; None where no line fits."""
        dealt = (self.deal(lines) for _ in range(2 * len(lines)))
        return next((line for line in dealt if placeholders(line) <= named), None)

    def phrase(self, key: str, *, share: float = 1.0) -> list[str]:
        """One line of the shared phrasings in `share` of the calls, else nothing."""
        if not self.chance(share) or key not in self.phrasings:
            return []
        return [self.deal(self.phrasings[key])]

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
        return [self.deal(lines)]

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
        return self.deal_fitting(scene.fact.lines["answer"], named=named | set(scene.case) | {"pointer"})

    def warm_up(self, scene: Scene, *, named: frozenset[str]) -> list[str]:
        """How the answer starts: a line that fits the topic, one that fits the tone, or none."""
        mood = self.rng.random()
        if mood < 0.3 and scene.voice != "angry":
            line = self.deal_fitting(scene.intent.lines_for(scene.fact, "feeling"), named=named)
            return [line] if line else []
        if mood > 0.8:
            return []
        key = f"reply.{scene.voice}"
        return [self.deal(scene.intent.lines.get(key) or self.phrasings[key])]

    def reply(
        self, scene: Scene, statements: Sequence[str], *, named: frozenset[str], follows: bool = False
    ) -> str:
        """The retailer's answer around `statements`; one that `follows` in a talk skips the courtesies."""
        values = {**scene.values, "pointer": self.phrase("pointer")[0]}
        start = [] if follows else self.warm_up(scene, named=named)
        advice = self.deal_fitting(scene.intent.lines_for(scene.fact, "next"), named=named)
        end = [advice] if advice and len(statements) == 1 and self.chance(0.8) else []
        end += self.phrase(f"close.{scene.voice}", share=0.0 if follows else 0.3)
        text = joined([*start, *statements, *end], values)
        if scene.channel != "email" or follows:
            return text
        greeting = self.phrase(f"replygreet.{scene.voice}", share=0.7 if "name" in named else 0.0)
        return "\n".join(
            [*(line.format(**values) for line in greeting), text, *self.phrase("replysign", share=0.4)]
        )
