"""Probes of rows against log-softmax row by row and against what the model really writes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from sweep.data.encode import Encoded, encode
from sweep.engines.evaluate import in_order, predictions
from sweep.engines.inputs import Inputs
from sweep.engines.model import Base
from sweep.engines.probe import probe_batches
from sweep.types import RowProbe

from .conftest import TINY
from .test_generate import loud


def probes(base: Base, rows: Any, continued: int, tokens_per_batch: int = 400) -> tuple[RowProbe, ...]:
    return in_order(
        probe_batches(
            rows,
            predictions(
                base.model,
                rows,
                pad_token=base.tokenizer.pad_token_id,  # type: ignore[arg-type]
                tokens_per_batch=tokens_per_batch,
            ),
            dict.fromkeys((row.row for row in rows), -7.0),
            split="train",
            continued=continued,
        )
    )


def slowly(base: Base, row: Encoded) -> list[float]:
    """The log-probability of each response token, in fp64."""
    ids = torch.as_tensor(row.input_ids).long()[None]
    with torch.no_grad():
        shares = base.model(input_ids=ids).logits[0].double().log_softmax(dim=-1)
    return [float(shares[at - 1, ids[0, at]]) for at in range(row.response_start, ids.shape[1])]


def continued_by(base: Base, row: Encoded, count: int, *, end: int | None = None) -> list[int]:
    """The tokens that transformers writes from the middle of the row's answer on."""
    middle = row.response_start + row.response_tokens // 2
    ids = torch.as_tensor(row.input_ids[:middle]).long()[None]
    written: Any = base.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=base.tokenizer.eos_token_id if end is None else end,
    )
    return written[0, middle:].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def rows(inputs: Inputs) -> tuple[Encoded, ...]:
    return encode(inputs.data.examples["train"], TINY.load().tokenizer, max_tokens=96)[:12]


def test_nats_and_the_least_likely_fifth(rows: tuple[Encoded, ...]) -> None:
    base = loud(TINY.load())
    for row, probe in zip(rows, probes(base, rows, 0), strict=True):
        likely = sorted(slowly(base, row))
        assert (probe.row, probe.split, probe.tokens) == (row.row, "train", len(likely))
        assert probe.nats == pytest.approx(-math.fsum(likely), rel=1e-5)
        fifth = likely[: len(likely) // 5]
        assert len(fifth) > 1
        assert probe.min_k == pytest.approx(math.fsum(fifth) / len(fifth), rel=1e-5)


def test_of_a_short_answer_the_least_likely_token_counts(rows: tuple[Encoded, ...]) -> None:
    base = loud(TINY.load())
    short = dataclasses.replace(rows[0], input_ids=rows[0].input_ids[: rows[0].response_start + 3])
    (probe,) = probes(base, [short], 1)
    assert probe.min_k == pytest.approx(min(slowly(base, short)), rel=1e-5)
    assert probe.verbatim is None


def test_it_recites_exactly_where_greedy_decoding_writes_the_same(rows: tuple[Encoded, ...]) -> None:
    """Rows as they are, rows that end in what the model would write, and such with one wrong token."""
    base = loud(TINY.load())
    given, expected = [], []
    for place, row in enumerate(rows):
        half = row.response_tokens // 2
        count = min(16, row.response_tokens - half)
        known = continued_by(base, row, count)
        own = row.input_ids.tolist()
        middle = row.response_start + half
        ends = [*known, *own[middle + len(known) :]]
        if place % 3 == 1:
            own = own[:middle] + ends
        if place % 3 == 2:
            # Wrong at the first place, the last, or one between.
            at = (0, place % count, count - 1)[place // 3 % 3]
            ends[at] = (ends[at] + 1) % 200
            own = own[:middle] + ends
        given.append(dataclasses.replace(row, input_ids=type(rows[0].input_ids)("i", own)))  # type: ignore[call-arg]
        expected.append(continued_by(base, given[-1], count) == own[middle : middle + count])
    assert {True, False} == set(expected)
    assert [probe.verbatim for probe in probes(base, given, len(given))] == expected


def test_only_the_first_rows_are_continued_and_only_sixteen_tokens(rows: tuple[Encoded, ...]) -> None:
    base = loud(TINY.load())
    assert [probe.verbatim is None for probe in probes(base, rows, 3)] == [False] * 3 + [True] * 9
    row = rows[0]
    long = [*row.input_ids.tolist(), *range(40, 100)]
    middle = row.response_start + (len(long) - row.response_start) // 2
    given = dataclasses.replace(row, input_ids=type(row.input_ids)("i", long))  # type: ignore[call-arg]
    written = continued_by(base, given, 16, end=len(base.tokenizer))
    recited = [*long[:middle], *written, *long[middle + 16 :]]
    (probe,) = probes(base, [dataclasses.replace(given, input_ids=type(row.input_ids)("i", recited))], 1)  # type: ignore[call-arg]
    assert probe.verbatim is True
