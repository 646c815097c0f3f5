"""Where the files that the product ships are, `conf`, `sweeps` and `data`, and how it writes its own."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """The text as the file, with its folder: whole or not at all, whoever reads or writes it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def packaged_root() -> Path:
    """The folder that holds `conf`, `sweeps`, `data`: in a wheel `sweep/_packaged`, else the repository."""
    package = Path(__file__).resolve().parent
    packaged = package / "_packaged"
    return packaged if packaged.is_dir() else package.parents[1]
