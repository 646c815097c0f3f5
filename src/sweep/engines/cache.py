"""Where converted and made models are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Where converted models are kept: $SWEEP_CACHE, else the user's cache folder."""
    configured = os.environ.get("SWEEP_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sweep"


def cached(identity: str, make: Callable[[Path], None]) -> Path:
    """The folder of `identity` in the cache; made aside and renamed, so that no reader sees half of it."""
    import transformers

    # The layout of saved tokenizers and weights belongs to a transformers version.
    key = hashlib.sha256(json.dumps([identity, transformers.__version__]).encode()).hexdigest()[:12]
    readable = "".join(letter if letter.isalnum() or letter in ".-_" else "-" for letter in identity)
    folder = cache_folder() / "models" / f"{readable}-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        make(aside)
        aside.replace(folder)
    except OSError:
        # Another process may have finished the same model first.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
