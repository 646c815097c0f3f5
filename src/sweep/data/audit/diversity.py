"""How much the answers differ, and how the prompts are written."""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from sweep.data.audit.finding import Finding, answers_of, judge
from sweep.data.example import Example
from sweep.data.split import normalised
from sweep.types import Limit

VENDI_ROWS = 500
GZIP_BYTES = 20_000
WORDS = 4_000
_OPENING = 3
_SLANG = re.compile(
    r"\b(?:u|ur|pls|plz|thx|ty|gonna|wanna|gotta|lol|omg|idk|btw|asap|cuz|coz|dunno|kinda|ya|yeah|yep|nope|hiya"
    r"|hey|wtf|ain't|y'all|lemme|gimme|tho)\b",
    re.I,
)


def vendi(examples: Sequence[Example], limit: Limit, *, seed: int) -> Finding:
    """The Vendi score of the answers for each row, on a sample: 1 where all differ, 1 / n where none does.

    Source: Friedman and Dieng 2023, arXiv:2210.02410, with the kernel of TF-IDF's cosines.
    """
    sample = _shuffled(examples, seed)[:VENDI_ROWS]
    vectors = TfidfVectorizer(token_pattern=r"\S+").fit_transform([row.response for row in sample])
    shares = np.linalg.eigvalsh((vectors @ vectors.T).toarray() / len(sample))
    shares = shares[shares > 1e-12]
    score = math.exp(-float((shares * np.log(shares)).sum())) / len(sample)
    return judge(
        "vendi",
        score,
        limit,
        worse="below",
        unit="number",
        message=f"{len(sample)} answers are as different as {score * len(sample):.0f} that share no word",
        mend="Add answers on other subjects and in other words.",
        rows=answers_of(sample),
    )


def compression(examples: Sequence[Example], limit: Limit, *, seed: int) -> Finding:
    """How many times smaller gzip makes the answers: the more they repeat one another, the more."""
    text = "\n".join(row.response for row in _shuffled(examples, seed)).encode()[:GZIP_BYTES]
    ratio = len(text) / len(gzip.compress(text, mtime=0))
    return judge(
        "compression",
        ratio,
        limit,
        worse="above",
        unit="number",
        message=f"gzip makes {len(text) // 1000} kB of answers {ratio:.1f} times smaller",
        mend="Answers repeat whole sentences: write them anew for each case, or leave copies out.",
    )


def distinct_pairs(examples: Sequence[Example], limit: Limit, *, seed: int) -> Finding:
    """Different pairs of neighbouring words among those of the answers: distinct-2.

    Source: Li et al. 2016, arXiv:1510.03055.
    """
    pairs = list(pairwise(islice(_words(_shuffled(examples, seed)), WORDS)))
    share = len(set(pairs)) / max(1, len(pairs))
    return judge(
        "distinct_pairs",
        share,
        limit,
        worse="below",
        message=f"{share:.0%} of the pairs of words in the answers are different ones",
        mend="Write answers in other words, not from a template.",
    )


def openings(examples: Sequence[Example], limit: Limit) -> Finding:
    """The share of answers that begin with the commonest three words."""
    begins = [" ".join(normalised(row.response).split()[:_OPENING]) for row in examples]
    ((commonest, count),) = Counter(begins).most_common(1)
    share = count / len(examples)
    return judge(
        "openings",
        share,
        limit,
        worse="above",
        message=f"{share:.0%} of the answers begin with {commonest!r}",
        mend="A model would begin each of its answers so. Vary the beginnings or drop the phrase.",
        rows=answers_of(row for row, begin in zip(examples, begins, strict=True) if begin == commonest),
    )


def styles(examples: Sequence[Example], limit: Limit) -> Finding:
    """The largest share of prompts that are written carelessly in one of three ways."""
    prompts = [row.prompt.strip() for row in examples]
    shares = {
        "begin in lower case": _share(prompts, lambda text: text[:1].islower()),
        "end without a stop": _share(prompts, lambda text: text[-1:] not in ".?!…"),
        "hold slang": _share(prompts, lambda text: bool(_SLANG.search(text))),
    }
    told = ", ".join(f"{share:.0%} {how}" for how, share in shares.items())
    return judge(
        "style",
        max(shares.values()),
        limit,
        worse="below",
        message=f"of the prompts {told}",
        mend="Prompts are formal only. Add some as customers type them: lower case, no stops, slang, typos.",
    )


def _share(texts: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(holds(text) for text in texts) / len(texts)


def _words(examples: Sequence[Example]) -> Iterator[str]:
    for row in examples:
        yield from re.findall(r"\w+", row.response.lower())


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]
