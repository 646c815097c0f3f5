"""Encoded rows in a file that every process of a sweep maps into its memory, written once."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.data.encode import Encoded
from sweep.engines.checkpoint import verified, writing
from sweep.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IDS, _ROWS = "ids.npy", "rows.json"


def mapped(folder: Path, make: Callable[[], Sequence[Encoded]]) -> tuple[Encoded, ...]:
    """The rows kept in the folder, made and kept there first if they are not whole yet, by one process alone.

    Their tokens are views of one map of the file: processes share its pages, and pages that nobody
    reads take no memory.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Given up with the process that holds it, however that ends.
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            verified(folder)
        except CheckpointError:
            _keep(folder, make())
    # Copy on write: torch wants arrays that it could write to, and none is ever written.
    ids = np.load(folder / _IDS, mmap_mode="c")
    rows = json.loads((folder / _ROWS).read_text(encoding="utf-8"))
    starts = np.cumsum([0, *(row["tokens"] for row in rows)])
    return tuple(
        Encoded(
            row=row["row"],
            input_ids=ids[start : start + row["tokens"]],
            response_start=row["response_start"],
            response_bytes=row["response_bytes"],
            truncated=row["truncated"],
        )
        for row, start in zip(rows, starts, strict=False)
    )


def identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of everything that decides how a tokenizer encodes a conversation, 16 hexadecimal digits."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = [str(token) for token in tokenizer.all_special_tokens]
    parts = [rules, str(tokenizer.chat_template), json.dumps(special), type(tokenizer).__name__]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _keep(folder: Path, rows: Sequence[Encoded]) -> None:
    with writing(folder) as aside:
        ids = [np.asarray(row.input_ids, dtype=np.int32) for row in rows]
        np.save(aside / _IDS, np.concatenate(ids) if ids else np.empty(0, dtype=np.int32))
        kept = [
            {
                "row": row.row,
                "tokens": len(row.input_ids),
                "response_start": row.response_start,
                "response_bytes": row.response_bytes,
                "truncated": row.truncated,
            }
            for row in rows
        ]
        (aside / _ROWS).write_text(json.dumps(kept), encoding="utf-8")
