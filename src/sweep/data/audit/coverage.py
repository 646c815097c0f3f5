"""Which subjects and which awkward cases the prompts hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from sweep.data.audit.finding import Finding, judge, prompts_of
from sweep.data.example import Example
from sweep.types import Limit

# Share of the rows from which a kind of prompt counts as covered.
_COVERED = 0.01
_SHORT = 3
# So many times the median number of words.
_LONG = 3
_ANGRY = re.compile(
    r"\b(angry|furious|ridiculous|unacceptable|useless|worst|terrible|awful|disgrac\w+|scam|fed up|sick of"
    r"|joke|lawyer|never again|pathetic|appalling|outrag\w+|rubbish|damn|wtf)\b|!!|\b[A-Z]{4,} [A-Z]{3,}\b",
)
_SECOND = re.compile(
    r"\?.*\?|\b(and|one more thing|another thing|second|besides|by the way|btw)\b[^.?!]*\?|\balso\b",
    re.S | re.I,
)
_OUT_OF_SCOPE = re.compile(r"out.?of.?scope|\boos\b|other|fallback|unsupported|chit.?chat|off.?topic", re.I)
_WORD = re.compile(r"[^\W\d_]+")
# A word this long that occurs this often is spelt right; one letter off it and seldom, it is a typo.
_SPELT_LENGTH = 5
_SPELT_TIMES = 10
_SELDOM = 0.1


def intents(examples: Sequence[Example], limit: Limit) -> Finding:
    """How many intents the rows are labelled with; where one has most rows, that counts as too few."""
    counts = _counts(examples)
    if not counts:
        return _untold("intents", limit)
    name, most = counts.most_common(1)[0]
    share = most / sum(counts.values())
    told = f"{len(counts)} intents, the commonest, {name!r}, in {share:.0%} of the rows"
    value = len(counts) if share <= 0.5 or len(counts) == 1 else min(len(counts), limit.warn - 1)
    return judge(
        "intents",
        value,
        limit,
        worse="below",
        unit="number",
        message=told,
        mend="Add rows of the other subjects that customers write about, in about their true shares.",
    )


def smallest_intent(examples: Sequence[Example], limit: Limit) -> Finding:
    """Rows of the intent that has the fewest."""
    counts = _counts(examples)
    if not counts:
        return _untold("intent_rows", limit)
    few = [name for name, count in counts.items() if count < limit.warn]
    name, least = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    return judge(
        "intent_rows",
        least,
        limit,
        worse="below",
        unit="number",
        message=f"{len(few)} of {len(counts)} intents have fewer than {limit.warn:g} rows, {name!r} {least}",
        mend="Add rows of these intents, or join them with a related one: "
        + ", ".join(sorted(few)[:8])
        + ".",
        rows=prompts_of(row for row in examples if row.intent in few),
    )


def edge_cases(examples: Sequence[Example], limit: Limit) -> Finding:
    """How many of six awkward kinds of prompt make up a hundredth of the rows or more."""
    shares = {name: len(found) / len(examples) for name, found in _edge_cases(examples).items()}
    told = {name: f"{name} {share:.1%}" for name, share in shares.items()}
    if not _counts(examples):
        # Only labels could tell.
        shares["out of scope"], told["out of scope"] = 1.0, "out of scope not checked"
    rare = [name for name, share in shares.items() if share < _COVERED]
    return judge(
        "edge_cases",
        len(shares) - len(rare),
        limit,
        worse="below",
        unit="number",
        message=", ".join(told.values()),
        mend=f"Under {_COVERED:.0%} of the prompts are {', '.join(rare)}: users send such, so add some, "
        "with the answers you want.",
    )


def _edge_cases(examples: Sequence[Example]) -> dict[str, list[Example]]:
    counts = sorted(len(row.prompt.split()) for row in examples)
    median = counts[len(counts) // 2]
    misspelt = _misspelt(examples)
    cases: dict[str, Callable[[Example], bool]] = {
        "very short": lambda row: len(row.prompt.split()) <= _SHORT,
        "very long": lambda row: len(row.prompt.split()) >= _LONG * median,
        "misspelt": lambda row: not misspelt.isdisjoint(_words(row)),
        "out of scope": lambda row: bool(row.intent and _OUT_OF_SCOPE.search(row.intent)),
        "angry": lambda row: bool(_ANGRY.search(row.prompt)),
        "about several things": lambda row: bool(_SECOND.search(row.prompt)),
    }
    return {name: [row for row in examples if holds(row)] for name, holds in cases.items()}


def _misspelt(examples: Sequence[Example]) -> frozenset[str]:
    """Seldom words that are one letter off a common one."""
    counts = Counter(word for row in examples for word in _words(row))
    spelt = {w: n for w, n in counts.items() if n >= _SPELT_TIMES and len(w) >= _SPELT_LENGTH}
    near: dict[str, str] = {}
    for word in sorted(spelt, key=spelt.__getitem__):
        near |= dict.fromkeys(_forms(word), word)
    return frozenset(
        word
        for word, count in counts.items()
        if len(word) >= _SPELT_LENGTH - 1
        and word not in spelt
        and any(
            count <= _SELDOM * counts[near[form]] and not _inflects(word, near[form])
            for form in _forms(word)
            if form in near
        )
    )


def _forms(word: str) -> set[str]:
    """The word and what is left when a letter is dropped: words one letter apart share one."""
    return {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}


def _inflects(word: str, other: str) -> bool:
    """Whether only endings differ, as in a plural."""
    stem = min(len(word), len(other)) - 1
    return word[:stem] == other[:stem]


def _words(row: Example) -> list[str]:
    return [word.lower() for word in _WORD.findall(row.prompt)]


def _counts(examples: Sequence[Example]) -> Counter[str]:
    return Counter(row.intent for row in examples if row.intent is not None)


def _untold(check: str, limit: Limit) -> Finding:
    return judge(
        check,
        limit.warn,
        limit,
        worse="below",
        unit="number",
        message="not checked: no column names the rows' intents (data.intent_column)",
        mend="",
    )
