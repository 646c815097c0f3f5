"""What a YAML file of somebody else must not do: grow beyond its text, or fetch files from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from sweep.errors import ConfigError

# A configuration holds some hundreds. Ten aliases of ten aliases, ten levels deep, would be ten billion.
MOST_VALUES = 100_000


def check_file(file: Path) -> None:
    """Nothing, or ConfigError: its aliases make too much of it. What is no YAML is left to who reads it."""
    try:
        node = _composed(file)
    except RecursionError as error:
        raise ConfigError(
            f"{file}: is nested hundreds of levels deep; no configuration is. Do not use the file."
        ) from error
    if node is not None and _values(node, {}) > MOST_VALUES:
        raise ConfigError(
            f"{file}: by its aliases (&, *) it holds more than {MOST_VALUES:,} values; it must hold fewer. "
            "Write the values themselves, or do not use the file."
        )


def names_above(file: Path) -> bool:
    """Whether its defaults list has an entry with `..`, by which a file of anywhere could be named."""
    return any(leaves(name) for name in _defaults(_composed(file)))


def leaves(name: str) -> bool:
    """Whether the name of a file leaves the folder that it is looked for in."""
    return ".." in re.split(r"[/@ ]", name)


def _composed(file: Path) -> yaml.Node | None:
    try:
        return yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many there are once aliases are written out; infinitely many where one refers to itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        known[id(node)] = 1 + sum(_values(child, known) for child in _children(node))
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _defaults(node: yaml.Node | None) -> Iterator[str]:
    """What a defaults list names: groups, packages and files, as they stand there."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    waiting = [value for key, value in pairs if key.value == "defaults"]
    while waiting:
        inner = waiting.pop()
        waiting.extend(_children(inner))
        if isinstance(inner, yaml.ScalarNode):
            yield str(inner.value)
