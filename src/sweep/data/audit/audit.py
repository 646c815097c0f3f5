"""All checks of the data, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sweep.data.audit.coverage import edge_cases, intents, smallest_intent
from sweep.data.audit.diversity import compression, distinct_pairs, openings, styles, vendi
from sweep.data.audit.finding import Finding
from sweep.data.audit.labels import mislabelled
from sweep.data.audit.privacy import personal_data
from sweep.data.audit.repeats import (
    conflicts,
    distinct_answers,
    enough_rows,
    exact_repeats,
    leaks,
    look_alikes,
    near_repeats,
)
from sweep.data.audit.truncation import truncated
from sweep.data.example import Example
from sweep.errors import DataError
from sweep.types import Limit, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Each check's limits, by its name; `conf/audit/standard.yaml` says what they mean."""

    rows: Limit
    exact_duplicates: Limit
    near_duplicates: Limit
    leaks: Limit
    distinct_answers: Limit
    vendi: Limit
    compression: Limit
    distinct_pairs: Limit
    openings: Limit
    style: Limit
    intents: Limit
    intent_rows: Limit
    edge_cases: Limit
    personal_data: Limit
    labels: Limit
    conflicting_answers: Limit
    truncated: Limit


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the data must hold to. allow: checks that may fail all the same, by name."""

    allow: tuple[str, ...]
    limits: Limits

    def __post_init__(self) -> None:
        names = [limit.name for limit in fields(Limits)]
        if unknown := [name for name in self.allow if name not in names]:
            raise DataError(
                f"audit.allow: {unknown[0]!r} is no check; must be among {', '.join(names)}. Correct it."
            )


def audit(
    examples: Sequence[Example],
    splits: Mapping[str, Split],
    limits: Limits,
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    seed: int,
) -> tuple[Finding, ...]:
    """What every check found. splits: by row id. The same rows in any order give the same verdicts."""
    rows = sorted(examples, key=lambda example: example.id)
    groups = look_alikes(rows)
    return (
        enough_rows(rows, limits.rows),
        exact_repeats(rows, limits.exact_duplicates),
        near_repeats(rows, groups, limits.near_duplicates),
        leaks(rows, splits, groups, limits.leaks),
        distinct_answers(rows, limits.distinct_answers),
        vendi(rows, limits.vendi, seed=seed),
        compression(rows, limits.compression, seed=seed),
        distinct_pairs(rows, limits.distinct_pairs, seed=seed),
        openings(rows, limits.openings),
        styles(rows, limits.style),
        intents(rows, limits.intents),
        smallest_intent(rows, limits.intent_rows),
        edge_cases(rows, limits.edge_cases),
        personal_data(rows, limits.personal_data),
        mislabelled(rows, limits.labels, seed=seed),
        conflicts(rows, limits.conflicting_answers),
        truncated(rows, tokenizer, max_tokens=max_tokens, limit=limits.truncated),
    )
