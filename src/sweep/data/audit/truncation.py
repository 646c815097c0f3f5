"""Rows that are longer than what is read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweep.data.audit.finding import Finding, answers_of, judge
from sweep.data.encode import encode
from sweep.data.example import Example
from sweep.types import Limit

_AT_ONCE = 1000

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def truncated(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, limit: Limit
) -> Finding:
    """The share of rows that lose the beginning of their prompt or the end of their answer."""
    cut = []
    # Tokens are not kept: of 100,000 conversations at once they take more than a gigabyte.
    for start in range(0, len(examples), _AT_ONCE):
        part = examples[start : start + _AT_ONCE]
        encoded = encode(part, tokenizer, max_tokens=max_tokens)
        cut += [example for example, row in zip(part, encoded, strict=True) if row.truncated]
    share = len(cut) / len(examples)
    return judge(
        "truncated",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the rows are longer than {max_tokens} tokens and lose a part",
        mend="Raise data.max_tokens, or shorten the rows: a model that sees no end does not learn to stop.",
        rows=answers_of(cut),
    )
