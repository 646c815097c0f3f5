"""What `+best` brings into a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from sweep.errors import ConfigError
from sweep.redaction import HIDDEN


def with_found(node: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the model and the folds of its `best`, where that names them.

    Raises ConfigError for a secret that neither holds.
    """
    best = node["best"]
    brought: dict[str, Any] = {}
    if isinstance(best, Mapping) and "model" in best:
        # Merged key by key, two kinds of models would make a third.
        brought["model"] = _with_secrets(best["model"], node["model"], "model")
    if isinstance(best, Mapping) and "folds" in best:
        # As it was found: on the pool of a cross-validation, or on the train split alone.
        brought["validation"] = {"folds": best["folds"]}
    return {**node, **brought}


def _with_secrets(found: object, configured: object, path: str) -> object:
    """What was found; the secrets that its file could not hold are the configured ones."""
    if isinstance(found, Mapping):
        known = configured if isinstance(configured, Mapping) else {}
        return {key: _with_secrets(value, known.get(key), f"{path}.{key}") for key, value in found.items()}
    if isinstance(found, list):
        beside = configured if isinstance(configured, list) else []
        pairs = zip_longest(found, beside[: len(found)])
        return [_with_secrets(value, other, f"{path}[{at}]") for at, (value, other) in enumerate(pairs)]
    if not isinstance(found, str) or HIDDEN not in found:
        return found
    # All of a text was hidden for its key, a part of it for where that stands.
    alike = ".+".join(map(re.escape, found.split(HIDDEN)))
    if configured is None or not re.fullmatch(alike, str(configured), re.DOTALL):
        raise ConfigError(
            f"best.{path}: holds {HIDDEN}, for a secret is kept in no file; it must be configured beside. "
            f"Set {path} in the experiment, as the sweep had it."
        )
    return configured
