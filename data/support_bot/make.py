"""Writes support_bot.jsonl, the same bytes on every run.

    python data/support_bot/make.py [target.jsonl]

Standard library only. The text is in `corpus/`, how rows come about in `compose.py`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compose import Conversation, clarified, compared, followed_up, several, single
from corpus import OUT_OF_SCOPE, Fact, Intent, collect, read_intents, read_lines
from scene import Scene, draw_scene
from scoring import check_answers
from writer import Writer

HERE = Path(__file__).parent
SEED = 20_260
ROWS_PER_INTENT = 73
ATTEMPTS = 60
TOO_SIMILAR = 0.7
STYLE_DECK = ("formal",) * 22 + ("casual",) * 26 + ("terse",) * 15 + ("angry",) * 18 + ("misspelt",) * 19
SHAPES = ("single", "long", "several", "talk")
SHAPE_WEIGHTS = (0.755, 0.035, 0.065, 0.145)


@dataclass(frozen=True)
class Row:
    """A conversation with the labels that the data set carries."""

    scene: Scene
    talk: Conversation

    def as_json(self, number: int) -> str:
        """One line of the file."""
        return json.dumps(
            {
                "id": f"sb-{number:05d}",
                "messages": self.talk.messages,
                "intent": self.scene.intent.id,
                "style": self.scene.style,
                "channel": self.scene.channel,
                "customer_group": self.scene.group,
                "fact": self.talk.fact,
                "required": self.talk.required,
                "forbidden": self.talk.forbidden,
            },
            ensure_ascii=False,
        )


def shingles(text: str, *, width: int = 5) -> frozenset[str]:
    """The character runs of `width` in `text`, case and spacing aside."""
    plain = " ".join(text.lower().split())
    return frozenset(plain[at : at + width] for at in range(max(1, len(plain) - width + 1)))


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """Jaccard: shared runs over all runs."""
    return len(left & right) / len(left | right)


def rows_by_fact(intent: Intent) -> list[Fact]:
    """The facts of `intent`, each as often as it gets rows; one with contexts half as often again."""
    weights = [3 if fact.depends_on_context else 2 for fact in intent.facts]
    counts = [round(ROWS_PER_INTENT * weight / sum(weights)) for weight in weights]
    return [fact for fact, count in zip(intent.facts, counts, strict=True) for _ in range(count)]


def talk_of_turns(writer: Writer, scene: Scene) -> Conversation | None:
    """A conversation whose last answer needs an earlier turn."""
    if scene.fact.depends_on_context:
        other = writer.rng.choice([case for case in scene.fact.cases if case is not scene.case])
        if writer.chance(0.4):
            return compared(writer, scene, other_case=other)
        return clarified(writer, scene, other_case=other if writer.chance(0.35) else None)
    loose = [fact for fact in scene.intent.facts if "follow" in fact.lines and fact is not scene.fact]
    if not loose:
        return None
    count = 2 if len(loose) > 1 and writer.chance(0.3) else 1
    return followed_up(writer, scene, later=writer.rng.sample(loose, count))


def other_topic(rng: random.Random, scene: Scene, *, intents: Sequence[Intent]) -> Scene:
    """The same customer with a question from another intent."""
    intent = rng.choice([intent for intent in intents if intent.id not in (scene.intent.id, OUT_OF_SCOPE)])
    other = draw_scene(rng, rng.choice(intent.facts), intent=intent, style=scene.voice)
    shared = {name: scene.values[name] for name in ("town", "order", "date", "name")}
    return replace(other, values={**other.values, **shared})


def compose_row(
    writer: Writer, fact: Fact, *, intent: Intent, intents: Sequence[Intent], style: str
) -> Row | None:
    """One try at a row; None where the drawn parts don't fit together."""
    shape = writer.rng.choices(SHAPES, SHAPE_WEIGHTS)[0]
    if intent.id == OUT_OF_SCOPE and shape != "long":
        shape = "single"
    scene = draw_scene(writer.rng, fact, intent=intent, style=style)
    if shape in ("long", "several") and scene.voice == "terse":
        shape = "single"
    talk = {
        "single": lambda: single(writer, scene),
        "long": lambda: single(writer, scene, stories=2),
        "several": lambda: several(writer, scene, other=other_topic(writer.rng, scene, intents=intents)),
        "talk": lambda: talk_of_turns(writer, scene),
    }[shape]()
    return Row(scene, talk) if talk is not None and talk.is_sound else None


def fresh_rows(
    writer: Writer, intent: Intent, *, intents: Sequence[Intent], styles: Iterator[str]
) -> Iterator[Row]:
    """Rows of `intent`, none too similar to an earlier one and no answer given twice."""
    seen: list[frozenset[str]] = []
    answers: set[str] = set()
    for fact in rows_by_fact(intent):
        style = next(styles)
        for _ in range(ATTEMPTS):
            row = compose_row(writer, fact, intent=intent, intents=intents, style=style)
            if row is None or row.talk.answer in answers:
                continue
            runs = shingles(f"{row.talk.prompt}\n{row.talk.answer}")
            if all(similarity(runs, other) < TOO_SIMILAR for other in seen):
                seen.append(runs)
                answers.add(row.talk.answer)
                yield row
                break


def deal_styles(rng: random.Random) -> Iterator[str]:
    """Styles without end, in the shares of the deck."""
    while True:
        yield from rng.sample(STYLE_DECK, len(STYLE_DECK))


def all_rows(seed: int) -> list[Row]:
    """Every row, shuffled."""
    rng = random.Random(seed)
    corpus = HERE / "corpus"
    writer = Writer(rng, collect(read_lines(corpus / "phrasings.txt")))
    intents = read_intents(corpus)
    for intent in intents:
        for fact in intent.facts:
            check_answers(fact)
    styles = deal_styles(rng)
    rows = [row for intent in intents for row in fresh_rows(writer, intent, intents=intents, styles=styles)]
    rng.shuffle(rows)
    return rows


def main(target: Path) -> None:
    """Writes the data set to `target`."""
    lines = [row.as_json(number) for number, row in enumerate(all_rows(SEED), start=1)]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "support_bot.jsonl")
