"""A search space in the grammar of Hydra's overrides, spelled out as mappings. Parsed by Hydra itself."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    QuotedString,
    RangeSweep,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException

from sweep.errors import SpaceError

_REORDERING = re.compile(r"\b(sort|shuffle|glob)\s*\(")
_FORMS = (
    "Write interval(1e-4, 1e-2), tag(log, interval(1e-4, 1e-2)), int(interval(2, 64)), "
    "range(2, 10, step=2) or choice(4, 8, 16)"
)


def spell_out(name: str, value: object) -> object:
    """The mapping form of what `space.<name>` holds in Hydra's grammar. What is no text stays as it is.

    A range ends before its stop, as Python's. Raises SpaceError.
    """
    if not isinstance(value, str):
        return value
    path = f"space.{name}"
    if found := _REORDERING.search(value):
        raise SpaceError(
            f"{path}: {found[1]} has no meaning in a search, whose sampler picks the order; got {value!r}. "
            "Drop it."
        )
    if re.search(r"\bnull\b", value):
        raise SpaceError(f"{path}: null is no value of a recipe field; got {value!r}. Remove it.")
    try:
        override = OverridesParser.create().parse_override(f"{name}={value}")
    except HydraException as error:
        reason = next(iter(str(error).splitlines()), "")
        raise SpaceError(f"{path}: {value!r} can't be read: {reason}. {_FORMS}.") from error
    if override.value_type == ValueType.SIMPLE_CHOICE_SWEEP:
        raise SpaceError(f"{path}: got {value!r}. To search these values, write choice({value}).")
    sweep = override.value()
    if not isinstance(sweep, Sweep):
        raise SpaceError(f"{path}: got {value!r}, which is nothing to search. {_FORMS}.")
    return _form(sweep, path)


def _form(sweep: Sweep, path: str) -> dict[str, object]:
    meaningful = {"log"} if isinstance(sweep, IntervalSweep) else set()
    if unknown := sorted(sweep.tags - meaningful):
        raise SpaceError(
            f"{path}: tag({unknown[0]}, ...) has no meaning here; only tag(log, interval(...)) has one. "
            "Drop the tag."
        )
    match sweep:
        case ChoiceSweep(list=values):
            return {"choices": [_unquoted(value) for value in values]}
        case IntervalSweep(start=low, end=high):
            return {"low": low, "high": high, "log": "log" in sweep.tags, "int": isinstance(low, int)}
        case RangeSweep(start=start, stop=stop, step=step):
            return _range(start, stop, step, path)
    raise AssertionError(sweep)


def _range(start: Any, stop: Any, step: Any, path: str) -> dict[str, object]:
    # Decimals: 0.1 + 2 * 0.1 must be 0.3, not 0.30000000000000004.
    first, end, stride = (Decimal(str(number)) for number in (start, stop, step))
    strides = math.ceil((end - first) / stride) - 1 if stride else -1
    if strides < 0:
        raise SpaceError(
            f"{path}: range({start}, {stop}, step={step}) is empty. Change its ends or its step."
        )
    whole = all(isinstance(number, int) for number in (start, stop, step))
    kind = int if whole else float
    low, high = sorted((kind(first), kind(first + strides * stride)))
    if low == high:
        return {"choices": [low]}
    return {"low": low, "high": high, "step": kind(abs(stride)), "int": whole}


def _unquoted(value: object) -> object:
    if isinstance(value, QuotedString):
        return value.text
    return [_unquoted(item) for item in value] if isinstance(value, list) else value
