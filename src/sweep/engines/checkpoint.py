"""Folders that are either whole or absent: written aside, checksummed, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import CheckpointError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_SUMS = "checksums.json"


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """An empty folder to fill; on leaving without an error it becomes `target`, replacing an older one."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        (aside / _SUMS).unlink(missing_ok=True)
        sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / _SUMS).write_text(json.dumps(sums, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def verified(folder: Path) -> Path:
    """The folder, once every file has been found as it was written. Raises CheckpointError."""
    try:
        sums: dict[str, str] = json.loads((folder / _SUMS).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: its {_SUMS} can't be read.") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise CheckpointError(
                f"{path} is missing or is not what was written; the checkpoint can't be used."
            )
    return folder


def latest(folder: Path) -> tuple[int, Path] | None:
    """Examples seen and path of the newest whole checkpoint among `<folder>/<examples>`, if there is one."""
    for path in sorted(folder.glob("[0-9]*"), key=lambda path: -int(path.name)):
        try:
            return int(path.name), verified(path)
        except CheckpointError:
            continue
    return None


def remove(folder: Path) -> None:
    """Delete a checkpoint. A folder that is none stays: a storage must not say what else is deleted."""
    if (folder / _SUMS).is_file():
        shutil.rmtree(folder, ignore_errors=True)


def export_adapter(folder: Path, target: Path) -> Path:
    """The checkpoint's adapter alone, in PEFT's layout, as `target`.

    Raises CheckpointError if it holds none.
    """
    verified(folder)
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} holds no adapter: {missing[0]} is missing. Use an engine that trains one."
        )
    with writing(target) as aside:
        for name in ADAPTER_FILES:
            shutil.copy2(folder / name, aside / name)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
