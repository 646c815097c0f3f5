"""Where a sweep may keep what it writes."""

from __future__ import annotations

import re
from pathlib import Path

from sweep.errors import ConfigError
from sweep.schema import require


def check_places(*, output: str, checkpoints: str) -> None:
    """Nothing, or ConfigError: no folders of their own, or no URL by which states could be kept."""
    require("output", output, _is_own(output), "a folder of its own, such as runs/mine")
    _check_checkpoints(checkpoints)


def _is_own(folder: str) -> bool:
    own = Path(folder).expanduser().resolve() not in (Path.home(), *Path.cwd().parents, Path.cwd())
    return bool(folder) and own


def _check_checkpoints(place: str) -> None:
    """Nothing, or ConfigError: no folder, and no URL by which states could be kept."""
    kind, url, path = place.partition("://")
    if not url:
        require("checkpoints", place, _is_own(place), "a folder of its own, such as runs/mine/checkpoints")
        return
    if re.search(r"^[^/]*:[^/]*@|[?#]", path):
        raise ConfigError(
            f"checkpoints: the {kind} URL must hold no password and no options, for places are shown and "
            "stored. Leave them out, and give them to fsspec by its environment variables or its "
            "configuration file."
        )
    own = path.strip("/") and "::" not in place
    require("checkpoints", place, own, f"a place of its own and no chain, such as {kind}://bucket/${{name}}")
    import fsspec

    try:
        fsspec.get_filesystem_class(kind)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"checkpoints: {kind}:// can't be used ({str(error).rstrip('.')}); fsspec must know its kind and "
            "have the package for it. Install that, or name a folder that every worker sees."
        ) from error
