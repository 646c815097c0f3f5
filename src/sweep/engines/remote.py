"""Files below a URL, through fsspec, which is imported where there is one.

Credentials are fsspec's own business: its environment variables and its configuration files. Errors name the
URL and the kind of error, as an object store's own texts may hold headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import TrainingError, is_full_disk

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def is_url(place: str | Path) -> bool:
    """Whether the place is no plain folder."""
    return "://" in str(place)


def upload(folder: Path, url: str, *, last: str) -> None:
    """The folder's files in place of what was there. last: the one that they are not whole without."""
    remove(url, last=last)
    with _reached(url) as (files, path):
        files.makedirs(path, exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == last, file.name)):
            files.put_file(str(file), f"{path}/{file.name}")


def download(url: str, target: Path) -> None:
    """One file. Raises FileNotFoundError."""
    with _reached(url) as (files, path):
        files.get_file(path, str(target))


def read(url: str) -> bytes:
    """One small file. Raises FileNotFoundError."""
    with _reached(url) as (files, path):
        return bytes(files.cat_file(path))


def files(url: str) -> dict[str, int]:
    """The bytes of every file below the URL, by path from there."""
    with _reached(url) as (system, path):
        # Others write there, too.
        system.invalidate_cache()
        found = system.find(path, detail=True) if system.isdir(path) else {}
        start = len(path.rstrip("/")) + 1
        return {name[start:]: int(entry["size"] or 0) for name, entry in found.items()}


def remove(url: str, *, last: str) -> None:
    """Leave nothing there. last: the file that tells, as long as it is there, which others are lacking."""
    with _reached(url) as (files, path):
        files.invalidate_cache()
        if not files.isdir(path):
            return
        # One by one: what removes many at once does so in no order.
        for file in files.find(path):
            if file.rpartition("/")[2] != last:
                files.rm_file(file)
        files.rm(path, recursive=True)


@contextmanager
def _reached(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """The file system and the path in it. Raises TrainingError for all but a missing file and a full disk."""
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(url)
    except FileNotFoundError:
        raise
    except Exception as error:
        # Of whatever kind: each file system has its own.
        if is_full_disk(error):
            raise
        raise TrainingError(
            f"checkpoints: {url} could not be reached or written ({type(error).__name__}). It must be open "
            "to this machine and all workers, with credentials of fsspec's environment or configuration. "
            "Mend it, then start the same command again: it goes on with what is stored."
        ) from error
