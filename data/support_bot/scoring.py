"""What makes a reply right: all of `required`, none of `forbidden`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corpus import CorpusError, Fact


def mentions(reply: str, entry: str) -> bool:
    """Whether `reply` holds any of the alternatives that `|` separates, ignoring case."""
    return any(token in reply.lower() for token in entry.lower().split("|"))


def is_right(reply: str, *, required: Sequence[str], forbidden: Sequence[str]) -> bool:
    """Whether `reply` holds every required entry and no forbidden one."""
    return all(mentions(reply, entry) for entry in required) and not any(
        mentions(reply, entry) for entry in forbidden
    )


def required_entries(fact: Fact, case: Mapping[str, str]) -> list[str]:
    """What a right reply must hold in this context."""
    return [line.format(**case) for line in fact.lines["required"]]


def forbidden_entries(fact: Fact, case: Mapping[str, str]) -> list[str]:
    """What makes a reply wrong in this context: the fact's own list, and the values of other contexts."""
    entries = [line.format(**case) for line in fact.lines.get("forbidden", ())]
    for line in fact.lines.get("rival", ()):
        others = dict.fromkeys(line.format(**other) for other in fact.cases)
        others.pop(line.format(**case))
        entries.append("|".join(others))
    return entries


def check_answers(fact: Fact) -> None:
    """Raises CorpusError if one of the fact's own wordings would be scored as wrong."""
    for case in fact.cases:
        required, forbidden = required_entries(fact, case), forbidden_entries(fact, case)
        for line in fact.lines["answer"]:
            text = line.format_map(Lenient(case))
            if fact.intent != "out_of_scope" and not is_right(text, required=required, forbidden=forbidden):
                raise CorpusError(
                    f"fact {fact.id}: {text!r} breaks required={required} or forbidden={forbidden}."
                )


class Lenient(dict[str, str]):
    """Slot values that leave unknown slots as they stand."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"
