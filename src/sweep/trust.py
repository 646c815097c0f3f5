"""What only the command line may decide: whose code runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweep.composition import Composition, compose_plain
from sweep.errors import ConfigError
from sweep.schema import convert

_SETS_BEST = re.compile(r"[+~]*best(?:[.=@]|$)")


def trusted_targets(composition: Composition) -> tuple[str, ...]:
    """What the user trusts. A file can't: it would trust itself."""
    trusted: tuple[str, ...] = convert(
        tuple[str, ...], composition.plain["trusted_targets"], "trusted_targets"
    )
    if trusted and "trusted_targets" not in composition.by_hand:
        listed = ",".join(trusted)
        raise ConfigError(
            f"trusted_targets: a file sets it to [{listed}], but only the command line may say whom to "
            f"trust. Remove it there, and write trusted_targets=[{listed}] if you trust them."
        )
    return trusted


def check_remote_code(
    model: object,
    composition: Composition,
    *,
    found: bool,
    overrides: Sequence[str],
    working_directory: Path | None,
) -> None:
    """Nothing, or ConfigError: the model would run its repository's code, and no consent is for that one.

    found: whether `+best` may have brought it. A consent is for the model that is configured without: that is
    the one that who gives it has read of, not what a file of results puts in its place.
    """
    if not isinstance(model, Mapping) or not model.get("trust_remote_code"):
        return
    given = "model.trust_remote_code" in composition.by_hand
    if not found and not given:
        raise ConfigError(
            "model.trust_remote_code: a file sets it, but only the command line may decide to run code from "
            "a model's repository. If you reviewed that code, write ++model.trust_remote_code=true on the "
            "command line."
        )
    if not found or (given and _code(model) == _consented(overrides, working_directory)):
        return
    path, revision = ("null" if part is None else part for part in _code(model))
    consent = shlex.join([f"++model.path={path}", f"++model.revision={revision}"])
    raise ConfigError(
        "best.model.trust_remote_code: a file sets it, but only the command line may decide to run code from "
        "a model's repository, and only for the path and the revision that are configured without +best. If "
        f"you reviewed this one's code, write {consent} ++model.trust_remote_code=true on the command line."
    )


def _consented(overrides: Sequence[str], working_directory: Path | None) -> tuple[object, object] | None:
    """The code of the model that is configured without `+best`; None where that is refused."""
    others = [override for override in overrides if not _SETS_BEST.match(override)]
    try:
        model = compose_plain(others, working_directory).plain["model"]
    except ConfigError:
        # The consent is for a key that only `+best` brings.
        return None
    return _code(model) if model.get("trust_remote_code") else None


def _code(model: Mapping[str, object]) -> tuple[object, object]:
    """By which a repository's code is known."""
    return model.get("path"), model.get("revision")
