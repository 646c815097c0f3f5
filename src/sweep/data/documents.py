"""A folder of documents as passages of a size that fits into a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sweep.errors import DataError

ENDINGS = (".md", ".txt")
WORDS = 120
# What ends a paragraph, a line, a word, and what stands there when they are put together again.
_BORDERS = ((r"\n\s*\n", "\n\n"), (r"\n", "\n"), (r"\s+", " "))


def passages(folder: str) -> tuple[str, ...]:
    """The text of the folder's `.md` and `.txt` files, subfolders included, files by path.

    A passage has at most 120 words and is cut where a paragraph ends; a longer paragraph is cut between
    lines, a longer line between words. No word is lost. Raises DataError for a folder that is missing or
    holds no text, and for a file that is not UTF-8.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise DataError(
            f"documents={folder}: there is no such folder; it must hold {' or '.join(ENDINGS)} files. "
            "Correct baseline.retrieval.documents, or set it to null for the train split's rows."
        )
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = tuple(passage for path in files for passage in _cut(_text(path), _BORDERS) if passage)
    if not found:
        raise DataError(
            f"documents={folder}: no {' or '.join(ENDINGS)} file there holds text; one must. Put documents "
            "there, or set baseline.retrieval.documents to null for the train split's rows."
        )
    return found


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"documents: {path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; documents must "
            "be. Save it as UTF-8, or take it out of the folder."
        ) from error


def _cut(text: str, borders: Sequence[tuple[str, str]]) -> list[str]:
    """The text in parts of at most 120 words, each as long as the first border allows."""
    if len(text.split()) <= WORDS:
        return [text]
    (border, joint), *finer = borders
    parts = [part for piece in re.split(border, text) if piece for part in _cut(piece, finer)]
    joined = parts[:1]
    for part in parts[1:]:
        if len(joined[-1].split()) + len(part.split()) <= WORDS:
            joined[-1] += joint + part
        else:
            joined.append(part)
    return joined
