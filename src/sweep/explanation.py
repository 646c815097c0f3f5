"""What can't be composed, in the words of who wrote the file or the override."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

from sweep.overrides import Groups, offer
from sweep.redaction import hidden
from sweep.schema import ALIKE, instead, nearest, nearest_path

# Likeness from which a key that another choice of its group has is taken for it.
_CLEARLY = 0.8


def explained(
    error: Exception,
    roots: Sequence[Path],
    parsed: Sequence[Override],
    composed: Callable[[Sequence[Override]], Any],
) -> str:
    """Hydra's error in the words of who wrote the file or the override.

    composed: the plain configuration that overrides which choose files lead to.
    """
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).strip("/").rpartition("/")
        there = offer(group, name, error.options or ())
        return f"{group or 'defaults'}={name}: a defaults list names it, but there is no such file. {there}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        # What is never closed is noticed at the file's end, after its last line.
        unclosed = error.context_mark if "stream" in str(error.problem) else None
        mark = unclosed or error.problem_mark
        tabs = "Indent with spaces, not with tabs" if "\\t" in str(error.problem) else "Mend that line"
        return (
            f"{mark.name}, line {mark.line + 1}: is no YAML: {error.problem}. {tabs}: `key: value`, the keys "
            "of one level below each other, each once."
        )
    if isinstance(error, ReaderError):
        return f"{error.name}: is no YAML: {first_line(error)}. Remove that character."
    text = str(error) or str(error.__cause__)
    if found := re.search(r"Multiple values for (\w+)\. To override a value use '(override )(.+)'", text):
        return (
            f"defaults: `{found[3]}` chooses {found[1]} a second time; the first choice must be overridden. "
            f"Write `- override /{found[3]}` in the file, or {found[3].replace(': ', '=')} as an override."
        )
    if found := re.search(r"Could not override '[^']*/(\w+)@", text):
        return (
            f"defaults: `override {found[1]}` must begin with a slash, for the group lies at the top. "
            f"Write `- override /{found[1]}: NAME`."
        )
    if found := re.search(r"The value of '([^']+)' is .* and not ", text):
        return f"~{found[1]}: is taken out by its name alone. Write ~{found[1]}."
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        choices = [o for o in parsed if not o.is_delete() and _files(roots, o.key_or_group)]
        # Where nothing else was given, a chosen file is at fault, and what is there without it counts.
        return _no_such_key(found[1], composed(choices if len(choices) < len(parsed) else ()), roots)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"+{found[1]}: is there already. Write {found[1]}=..., without the plus."
    return f"The configuration can't be composed: {first_line(error)}"


def not_given(key: str, parsed: Sequence[Override], known: Groups) -> str:
    """What must be given at the key, for which the configuration holds nothing."""
    if key == "objective.goal" or key.startswith("objective.success."):
        return (
            f"{key}: must be given. The objective weighs benefits against costs, and without a goal and "
            "limits that were written down beforehand any result can be called a success. Write "
            "objective.goal='...' and objective.success.net_per_ticket_min, resolved_min and wrong_max, or "
            "objective=loss, which asks for nothing."
        )
    if key != "name":
        return f"{key}: must be given. Write {key}=... or set it in the experiment's file."
    chosen = next((str(o.value()) for o in parsed if o.key_or_group == "experiment"), None)
    if chosen is not None and chosen in known["experiment"]:
        return f"name: {known['experiment'][chosen]} sets none. Add `name: {chosen}` to it."
    some = offer("experiment", "", known["experiment"])
    return f"name: no experiment is chosen. Write +experiment=NAME. {some}"


def first_line(error: Exception) -> str:
    """What an error of Hydra says, without its frame: the first line that is not one."""
    text = str(error).strip() or str(error.__cause__).strip() or type(error).__name__
    lines = [line for line in text.splitlines() if not line.startswith("Error parsing override")]
    line = re.sub(r"^\w+ raised while resolving interpolation: ", "", (lines or [text])[0])
    return str(hidden(line)).rstrip(".")


def _no_such_key(key: str, config: Any, roots: Sequence[Path]) -> str:
    section, _, name = key.partition(".")
    fields = list(config["recipe"])
    if section == "space" and name in fields:
        return f"{key}: is not searched so far. To search it, write +{key}=..."
    if section == "space" and name:
        return f"{key}: no such recipe field. To search one, write +space.{nearest(name, fields)[0]}=..."
    if other := _of_another_choice(section, name, config, roots):
        return f"{key}: no such key. {other}"
    # As far as the path is right, what follows is compared with what is there alone.
    above, node, rest = "", config, key
    while "." in rest and isinstance(inner := node.get(rest.partition(".")[0]), dict):
        first, _, rest = rest.partition(".")
        above, node = f"{above}{first}.", inner
    near, likely = nearest_path(rest, _paths(node))
    if likely >= ALIKE:
        return f"{key}: no such key. Did you mean `{above}{near}`? --cfg job shows them all."
    return f"{key}: no such key. {instead(rest, [str(k) for k in node if k != '_target_'], above)}"


def _of_another_choice(section: str, name: str, config: Any, roots: Sequence[Path]) -> str | None:
    """Which choice of the group takes the key, where that is clearly what was written."""
    here = _paths(config.get(section))
    for file in _files(roots, section):
        there = _paths(OmegaConf.to_container(OmegaConf.load(file), resolve=False))
        near, likely = nearest_path(name, [path for path in there if path not in here])
        if likely >= _CLEARLY and likely > nearest_path(name, here)[1]:
            choice = f"{section}={file.stem}"
            return f"`{section}.{near}` is one of {choice}: choose that, or drop it."
    return None


def _files(roots: Sequence[Path], group: str) -> list[Path]:
    return [file for root in roots for file in sorted((root / group).glob("*.yaml"))] if group else []


def _paths(node: Any, above: str = "") -> list[str]:
    """Dotted, of all keys: those that hold others too."""
    items = node.items() if isinstance(node, dict) else ()
    return [path for key, value in items for path in (f"{above}{key}", *_paths(value, f"{above}{key}."))]
