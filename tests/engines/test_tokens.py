"""Rows read from the map are the rows that were encoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from sweep.data.encode import Encoded, encode
from sweep.engines.byte_tokenizer import byte_tokenizer
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.tokens import identity, mapped
from sweep.types import View


def same(first: Encoded, second: Encoded) -> bool:
    fields = ("row", "response_start", "response_bytes", "truncated")
    return list(first.input_ids) == list(second.input_ids) and all(
        getattr(first, name) == getattr(second, name) for name in fields
    )


def test_mapped_rows_are_the_encoded_ones_and_are_encoded_once(inputs: Inputs, tmp_path: Path) -> None:
    rows = encode(inputs.data.examples["train"], byte_tokenizer(), max_tokens=48)
    first = mapped(tmp_path / "rows", lambda: rows)
    again = mapped(tmp_path / "rows", lambda: pytest.fail("encoded twice"))
    for one in (first, again):
        assert len(one) == len(rows)
        assert all(same(a, b) for a, b in zip(one, rows, strict=True))
    assert isinstance(first[0].input_ids.base, np.memmap)  # type: ignore[union-attr]
    assert first[3].labels == rows[3].labels


def test_what_is_not_whole_is_made_again(inputs: Inputs, tmp_path: Path) -> None:
    rows = encode(inputs.data.examples["validation"], byte_tokenizer(), max_tokens=48)
    mapped(tmp_path / "rows", lambda: rows)
    (tmp_path / "rows" / "ids.npy").write_bytes(b"half")
    assert same(mapped(tmp_path / "rows", lambda: rows)[0], rows[0])


def test_another_tokenizer_or_length_is_another_file(inputs: Inputs) -> None:
    one, other = byte_tokenizer(), byte_tokenizer()
    other.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert identity(one) == identity(byte_tokenizer())
    assert identity(one) != identity(other)
    EncodedRows(inputs, one).view(View("test"))
    EncodedRows(inputs, other).view(View("test", 2))
    assert len(list((inputs.folder / ".tokens").glob("[!.]*"))) == 2


def test_of_those_who_want_the_same_rows_at_once_one_encodes_them(inputs: Inputs, tmp_path: Path) -> None:
    rows = encode(inputs.data.examples["train"], byte_tokenizer(), max_tokens=48)
    encoding, all_here = [], Barrier(4)

    def make() -> Sequence[Encoded]:
        encoding.append(1)
        return rows

    def read() -> tuple[Encoded, ...]:
        all_here.wait()
        return mapped(tmp_path / "rows", make)

    # The lock belongs to an open file, so threads exclude each other as processes do.
    with ThreadPoolExecutor(4) as readers:
        found = [job.result() for job in [readers.submit(read) for _ in range(4)]]
    assert len(encoding) == 1
    assert all(same(a, b) for one in found for a, b in zip(one, rows, strict=True))
