"""Numbers about one reply: whether it states the row's facts, how near it is to the reference answer.

Each class is one file of `conf/scorer/`. Rows that an objective counts as resolved are those that the scorer
named `facts` passes.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from sweep.data.example import Example

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

FACTS = "facts"

_logger = logging.getLogger("sweep.evaluation")


class Scorer(Protocol):
    """How much of what it is named for a reply has, as a number from 0 to 1 or a bool.

    Called in the driver, once for each row. None where the row, whatever was replied, can't be scored by
    it. Whatever it raises costs the number, not the model.
    """

    def __call__(self, example: Example, reply: str) -> float | None: ...


@dataclass(frozen=True)
class Facts:
    """1 if the reply holds every `required` entry of its row and no `forbidden` one, else 0.

    An entry is one phrase or several with `|` between them, of which one will do. Case, line breaks and the
    shape of apostrophes don't count. A phrase begins where a word or a number begins, so that "2 days" is not
    found in "12 days", and may end inside a word, "punctur", but not inside a number. None where the row has
    no phrases.
    """

    def __call__(self, example: Example, reply: str) -> float | None:
        if not (example.required or example.forbidden):
            return None
        text = _plain(reply)
        held = all(_phrases(entry).search(text) for entry in example.required)
        return float(held and not any(_phrases(entry).search(text) for entry in example.forbidden))


@dataclass(frozen=True)
class Chrf:
    """Likeness to the reference answer in pieces of up to six characters, as sacrebleu's chrF / 100.

    Source: Popović 2015, doi:10.18653/v1/W15-3049.
    """

    def __call__(self, example: Example, reply: str) -> float:
        return float(_chrf().sentence_score(reply, [example.response]).score) / 100


@dataclass(frozen=True)
class RougeL:
    """F1 of the longest common sequence of words with the reference answer, words not stemmed.

    Source: Lin 2004, aclanthology.org/W04-1013.
    """

    def __call__(self, example: Example, reply: str) -> float:
        return float(_rouge().score(example.response, reply)["rougeL"].fmeasure)


@dataclass(frozen=True)
class Exact:
    """1 if the reply is the reference answer, but for case and white space."""

    def __call__(self, example: Example, reply: str) -> float:
        return float(_plain(reply) == _plain(example.response))


def scores(
    scorers: Mapping[str, Scorer], examples: Sequence[Example], replies: Sequence[str]
) -> tuple[dict[str, float], ...]:
    """What each scorer gives each reply, by name, row by row.

    A scorer that raises, or whose value does not lie within 0 and 1, at any row is left out of all of them,
    for a mean over the rest would flatter; one warning names it.
    """
    columns = {name: _column(name, scorer, examples, replies) for name, scorer in scorers.items()}
    given = {name: column for name, column in columns.items() if column is not None}
    return tuple(
        {name: value for name, column in given.items() if (value := column[at]) is not None}
        for at in range(len(examples))
    )


def _column(
    name: str, scorer: Scorer, examples: Sequence[Example], replies: Sequence[str]
) -> list[float | None] | None:
    values: list[float | None] = []
    for example, reply in zip(examples, replies, strict=True):
        try:
            given = scorer(example, reply)
            value = None if given is None else float(given)
        except Exception as error:  # noqa: BLE001 - anybody's code, and no reason to lose the replies
            _warn(name, f"raised {type(error).__name__}")
            return None
        # Also where it is not a number.
        if value is not None and not 0 <= value <= 1:
            _warn(name, f"gave {value}")
            return None
        values.append(value)
    return values


@cache
def _warn(name: str, what: str) -> None:
    _logger.warning(
        "scorer.%s %s, so it is left out wherever it does. It must give a number from 0 to 1 for any reply: "
        "mend its class, or choose others with scorer=[...].",
        name,
        what,
        exc_info=sys.exception(),
    )


def _plain(text: str) -> str:
    joined = " ".join(unicodedata.normalize("NFKC", text).split())
    return joined.replace("\u2019", "'").replace("\u2018", "'").casefold()


@cache
def _phrases(entry: str) -> re.Pattern[str]:
    """What finds any of an entry's phrases in plain text; nothing where it has none."""
    phrases = [plain for phrase in entry.split("|") if (plain := _plain(phrase))]
    return re.compile("|".join(map(_bounded, phrases)) or r"(?!)")


def _bounded(phrase: str) -> str:
    # A digit on the other side of a point, comma or colon belongs to the same number.
    before = r"(?<!\w)(?<!\d[.,:])" if phrase[0].isdigit() else r"(?<!\w)" if phrase[0].isalpha() else ""
    after = r"(?!\d|[.,:]\d)" if phrase[-1].isdigit() else ""
    return f"{before}{re.escape(phrase)}{after}"


# Imported late: both libraries bring much that a search has no use for.


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
