"""Where the files that the product ships are: `conf`, `sweeps` and `data`."""

from __future__ import annotations

from pathlib import Path


def packaged_root() -> Path:
    """The folder that holds `conf`, `sweeps`, `data`: in a wheel `sweep/_packaged`, else the repository."""
    package = Path(__file__).resolve().parent
    packaged = package / "_packaged"
    return packaged if packaged.is_dir() else package.parents[1]
