"""Plain mappings into frozen, typed values: what does not fit is named by its config path."""

from __future__ import annotations

import difflib
import math
import types
from collections import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from sweep.errors import ConfigError
from sweep.redaction import hidden

T = TypeVar("T")

# The dotted name of something to import, which must be trusted like a `_target_`.
Code = NewType("Code", str)

# Likeness from which a name may have been meant; below, to suggest one would mislead.
ALIKE = 0.6

_NAMES: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}


def build(cls: type[T], node: object, path: str) -> T:
    """A `cls`, a dataclass, from a mapping whose keys are its fields and whose values fit their types.

    Raises ConfigError for a wrong, missing or unfit key: its path, what was given, what must hold.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"{path}: keys and values must stand here, got {shown(node, path)}. Write {path}.KEY=VALUE."
        )
    known = {field.name: field for field in fields(cast("Any", cls)) if field.init}
    check_keys(node, known, path)
    hints = get_type_hints(cls)
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in node]:
        raise ConfigError(f"{path}.{missing[0]}: missing. Add it, with {in_words(hints[missing[0]])}.")
    return cls(**{name: convert(hints[name], value, f"{path}.{name}") for name, value in node.items()})


def check_keys(node: Mapping[str, object], known: Iterable[str], path: str) -> None:
    """Nothing, or ConfigError: a key of the mapping that is not known, with the nearest that is."""
    names = list(known)
    prefix = f"{path}." if path else ""
    for key in node:
        if key not in names:
            raise ConfigError(f"{prefix}{key}: no such key. {instead(str(key), names, prefix)}")


def convert(hint: object, value: object, path: str) -> Any:
    """The value as `hint` says. Hints beyond plain types, dataclasses and collections of them pass it on."""
    if hint is float and isinstance(value, str):
        # YAML reads 1e-4, which has no point, as a string.
        value = _float(value)
    if hint in _NAMES:
        return _scalar(hint, value, path)
    if isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            offered = ", ".join(nearest(str(value), map(str, arguments)))
            raise ConfigError(f"{path}: must be one of {offered}, got {shown(value, path)}. Choose one.")
        return value
    if origin in (Union, types.UnionType):
        return _first_fitting(arguments, value, path)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{path}: a list must stand here, got {shown(value, path)}. Write [a, b].")
        return tuple(convert(arguments[0], item, f"{path}[{k}]") for k, item in enumerate(value))
    if origin is abc.Mapping and not isinstance(value, Mapping):
        raise ConfigError(
            f"{path}: keys and values must stand here, got {shown(value, path)}. Write {path}.KEY=VALUE."
        )
    return value


def require(path: str, value: object, holds: object, claim: str) -> None:
    """Nothing, or ConfigError: the value at that path does not hold what it must."""
    if not holds:
        raise ConfigError(f"{path}: must be {claim}; got {value!r}. Change {path}.")


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names, the one most like `name` first."""
    return sorted(names, key=lambda other: -likeness(name, other))


def likeness(name: str, other: str) -> float:
    """From 0 to 1; initials, such as `lr` of `learning_rate`, are as good as a near miss."""
    initials = "".join(word[:1] for word in other.split("_"))
    alike = difflib.SequenceMatcher(None, name, other).ratio()
    return max(alike, 0.9) if name == initials else alike


def instead(name: str, names: Iterable[str], prefix: str) -> str:
    """What to write for a key that is not there: the one that is like it, or else which there are."""
    offered = nearest(name, names)
    if not offered:
        return f"It takes none: drop it; where a file sets it, ~{prefix}{name} takes it out."
    if likeness(name, offered[0]) >= ALIKE:
        return f"Did you mean `{prefix}{offered[0]}`?"
    return (
        f"There are: {', '.join(offered)}. Choose one of them, or drop it; where a file sets it, "
        f"~{prefix}{name} takes it out."
    )


def nearest_path(name: str, paths: Iterable[str]) -> tuple[str, float]:
    """The dotted path that was likeliest meant, and its likeness; ("", 0) where there is none.

    One that ends in the name counts almost as much as the name by itself. `_target_` is nobody's meaning.
    """

    def meant(path: str) -> tuple[float, float]:
        whole = likeness(name, path)
        last = 0.0 if "." in name else 0.99 * likeness(name, path.rpartition(".")[2])
        return max(whole, last), whole

    wanted = [path for path in paths if not path.endswith("_target_")]
    near = max(wanted, key=meant, default="")
    return near, meant(near)[0] if near else 0.0


def shown(value: object, path: str = "") -> str:
    """The value for a message: short, and hidden where its key or a URL in it says that it is secret."""
    text = repr(hidden(value, path.rpartition(".")[2]))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _scalar(hint: object, value: object, path: str) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number:
        # Too large a whole number is a value that nobody means.
        if math.isfinite(cast("float", value)):
            return float(cast("float", value))
    elif hint is int:
        # As for floats; libraries below take no more than 64 bits.
        if number and isinstance(value, int) and -(2**63) <= value < 2**63:
            return value
    elif hint is not float and isinstance(value, cast("type", hint)):
        return value
    cure = "Put it in quotes" if hint is str and number else f"Change {path}"
    raise ConfigError(f"{path}: {_NAMES[hint]} must stand here, got {shown(value, path)}. {cure}.")


def _first_fitting(hints: Sequence[object], value: object, path: str) -> object:
    if value is None and type(None) in hints:
        return None
    rest = [hint for hint in hints if hint is not type(None)]
    errors: list[ConfigError] = []
    for hint in rest:
        try:
            return convert(hint, value, path)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1 and rest[0] not in _NAMES:
        raise errors[0]
    wanted = ", ".join(dict.fromkeys(_kind(hint) for hint in hints))
    raise ConfigError(
        f"{path}: one of these must stand here: {wanted}; got {shown(value, path)}. Change {path}."
    )


def in_words(hint: object) -> str:
    """What must stand in a YAML where this type is due, such as "a number or null"."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join(_kind(member) for member in members)


def _kind(hint: object) -> str:
    if hint in _NAMES:
        return _NAMES[hint]
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return "a list" if get_origin(hint) is tuple else "keys and values"


def _float(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
