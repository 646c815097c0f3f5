"""The hand-written text behind the data set, read from `corpus/*.txt`.

One `key: text` a line. `intent:` opens an intent and `fact:` a policy fact inside it; every other
key collects its lines in order. `{name}` marks a slot.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

STYLES_WRITTEN = ("formal", "casual", "terse", "angry")
OUT_OF_SCOPE = "out_of_scope"

Lines = Mapping[str, tuple[str, ...]]


class CorpusError(ValueError):
    """A corpus file that can't be read; the message names file, line and cure."""


@dataclass(frozen=True)
class Fact:
    """One policy fact: how customers ask for it, how the retailer states it, what a reply must hold.

    `cases` are the contexts the right answer depends on (country, kind of gear, membership tier);
    a fact without contexts has one empty case. `slot` names the case value that a question must state.
    """

    id: str
    intent: str
    lines: Lines
    cases: tuple[Mapping[str, str], ...]
    slot: str | None
    item_class: str

    @property
    def depends_on_context(self) -> bool:
        return self.slot is not None


@dataclass(frozen=True)
class Intent:
    """A topic of customer service: the facts it rests on and the lines its facts share."""

    id: str
    lines: Lines
    facts: tuple[Fact, ...]

    def lines_for(self, fact: Fact, key: str) -> tuple[str, ...]:
        """The fact's own lines under `key`, else the intent's."""
        return fact.lines.get(key) or self.lines.get(key, ())


def placeholders(template: str) -> frozenset[str]:
    """The slot names in `template`."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)


def read_lines(path: Path) -> list[tuple[str, str]]:
    """(key, text) of every line that isn't blank, in order."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        key, colon, text = line.partition(": ")
        if not colon:
            raise CorpusError(f"{path.name}:{number}: got {line!r}; write `key: text`.")
        pairs.append((key, text.strip()))
    return pairs


def collect(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Texts by key, each in file order."""
    lines: dict[str, tuple[str, ...]] = {}
    for key, text in pairs:
        lines[key] = (*lines.get(key, ()), text)
    return lines


def sections(pairs: list[tuple[str, str]], opener: str) -> list[list[tuple[str, str]]]:
    """`pairs` cut before each `opener` key; the first section holds what precedes the first one."""
    cut: list[list[tuple[str, str]]] = [[]]
    for key, text in pairs:
        if key == opener:
            cut.append([])
        cut[-1].append((key, text))
    return cut


def read_case(text: str) -> dict[str, str]:
    """Slot values of one context, from `name=value; name=value`."""
    return dict(part.strip().split("=", 1) for part in text.split(";"))


def read_fact(pairs: list[tuple[str, str]], intent: str, shared: Lines) -> Fact:
    """One fact, checked for enough wordings and for a question that states its context."""
    lines = collect(pairs)
    fact = Fact(
        id=lines["fact"][0],
        intent=intent,
        lines=lines,
        cases=tuple(read_case(text) for text in lines.get("case", ())) or ({},),
        slot=lines["slot"][0] if "slot" in lines else None,
        item_class=(lines.get("item") or shared.get("item", ("general",)))[0],
    )
    check_fact(fact)
    return fact


def check_fact(fact: Fact) -> None:
    """Raises CorpusError if a fact lacks wordings, or asks about a context without naming it."""
    short = [style for style in STYLES_WRITTEN if not fact.lines.get(style)]
    if short or len(fact.lines.get("answer", ())) < 4:
        raise CorpusError(
            f"fact {fact.id}: needs 4 `answer` lines and a line for each of {short or 'no style'}."
        )
    if fact.slot is None:
        return
    for style in STYLES_WRITTEN:
        unnamed = [line for line in fact.lines[style] if fact.slot not in placeholders(line)]
        if unnamed:
            raise CorpusError(f"fact {fact.id}: {unnamed[0]!r} must name {{{fact.slot}}}.")


def read_intents(folder: Path) -> tuple[Intent, ...]:
    """Every intent under `folder`, by file name and then by place in the file."""
    intents = []
    for path in sorted(folder.glob("*.txt")):
        for section in sections(read_lines(path), "intent")[1:]:
            head, *facts = sections(section, "fact")
            name, shared = head[0][1], collect(head)
            intents.append(Intent(name, shared, tuple(read_fact(pairs, name, shared) for pairs in facts)))
    return tuple(intents)
