"""One searched `Recipe` field: read from its spelled-out form, drawn and stored by Optuna."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.errors import SpaceError
from sweep.search import when as conditions
from sweep.search.ranges import KINDS, Value, broken_claim, shown

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
Code = float | int | bool | str

_INTERVAL_KEYS = ("low", "high", "log", "int", "step", "when")
_CHOICE_KEYS = ("choices", "when")
_FORMS = "Write {low: 1, high: 2} or {choices: [1, 2]}"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A `Recipe` field with the distribution of its codes, the numbers or labels that Optuna stores.

    choices: None for an interval, where codes are the values themselves. Numeric choices ascend
    and their codes are indices, so that samplers know their order; other choices are categorical.
    when: the condition under which the field is searched at all.
    """

    name: str
    distribution: Distribution
    choices: tuple[Value, ...] | None
    when: str | None

    @classmethod
    def from_mapping(cls, name: str, node: object) -> Parameter:
        """The parameter spelled out as `{low, high, log, int, step, when}` or `{choices, when}`."""
        path = f"space.{name}"
        if name not in KINDS:
            raise SpaceError(
                f"{path}: no such recipe field. Did you mean `space.{_nearest(name, list(KINDS))}`? "
                f"There are: {', '.join(KINDS)}."
            )
        form = _form(node, path)
        when = form.get("when")
        if when is not None:
            if not isinstance(when, str):
                raise SpaceError(f"{path}.when: a condition in quotes must stand here, got {shown(when)}.")
            conditions.check(when, f"{path}.when")
        if "choices" in form:
            distribution, choices = _choices(name, form["choices"])
            return cls(name=name, distribution=distribution, choices=choices, when=when)
        return cls(name=name, distribution=_interval(name, form), choices=None, when=when)

    def to_mapping(self) -> dict[str, object]:
        """The spelled-out form, which `from_mapping` reads back."""
        when = {} if self.when is None else {"when": self.when}
        if self.choices is not None:
            return {"choices": [list(c) if isinstance(c, tuple) else c for c in self.choices], **when}
        bounds = self._bounds
        whole = isinstance(bounds, IntDistribution)
        step = {} if bounds.step is None or bounds.log else {"step": bounds.step}
        return {"low": bounds.low, "high": bounds.high, "log": bounds.log, "int": whole, **step, **when}

    def decode(self, code: object) -> Value:
        """The recipe's value for what Optuna stores."""
        if self.choices is not None:
            return self.choices[self._codes.index(cast("Code", code))]
        number = cast("float", code)
        if isinstance(self.distribution, FloatDistribution) and self.distribution.step is not None:
            # Optuna multiplies in binary, and so draws 0.30000000000000004 for 0.3.
            number = _nearest_on_grid(number, low=self.distribution.low, step=self.distribution.step)
        return float(number) if KINDS[self.name] is float else int(number)

    def encode(self, value: Value) -> Code:
        """What Optuna stores for the recipe's value. Raises SpaceError where it lies outside."""
        if self.choices is not None and value in self.choices:
            return self._codes[self.choices.index(value)]
        if self.choices is None and self._contains(number := cast("float", value)):
            return int(number) if isinstance(self.distribution, IntDistribution) else float(number)
        raise SpaceError(
            f"recipe.{self.name}={shown(value)} lies outside space.{self.name}, which is {self}. The "
            f"recipe's own values are trial 0, so they must lie inside. Change recipe.{self.name}, widen "
            f"space.{self.name}, or leave it out of the search with ~space.{self.name}."
        )

    def __str__(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join(map(shown, self.choices))
        bounds = self._bounds
        whole = "whole numbers from " if isinstance(bounds, IntDistribution) else ""
        steps = "" if bounds.step in (None, 1) else f" in steps of {bounds.step:g}"
        return f"{whole}{bounds.low:g} to {bounds.high:g}{steps}"

    @property
    def _codes(self) -> Sequence[Code]:
        if isinstance(self.distribution, CategoricalDistribution):
            return cast("Sequence[Code]", self.distribution.choices)
        return range(len(self.choices or ()))

    @property
    def _bounds(self) -> FloatDistribution | IntDistribution:
        assert not isinstance(self.distribution, CategoricalDistribution)
        return self.distribution

    def _contains(self, value: float) -> bool:
        bounds = self._bounds
        inside = bounds.low <= value <= bounds.high
        return inside and (bounds.step is None or _on_grid(value, low=bounds.low, step=bounds.step))


def _form(node: object, path: str) -> Mapping[str, object]:
    if not isinstance(node, Mapping):
        raise SpaceError(
            f"{path}: what to search must stand here, got {shown(node)}. {_FORMS}, or fix it under `recipe` "
            f"and leave it out of the search with ~{path}."
        )
    if ("choices" in node) == bool({"low", "high"} & node.keys()):
        raise SpaceError(
            f"{path}: either `low` and `high` or `choices` must be given, "
            f"got {', '.join(map(str, node)) or 'neither'}. {_FORMS}."
        )
    allowed = _CHOICE_KEYS if "choices" in node else _INTERVAL_KEYS
    for key in node:
        if key not in allowed:
            raise SpaceError(
                f"{path}.{key}: no such key; there are {', '.join(allowed)}. "
                f"Did you mean `{_nearest(str(key), allowed)}`?"
            )
    return node


def _interval(name: str, form: Mapping[str, object]) -> FloatDistribution | IntDistribution:
    path = f"space.{name}"
    if KINDS[name] not in (int, float):
        raise SpaceError(f"{path}: the values of {name} have no order. Write {{choices: [...]}}.")
    log, whole = (_flag(form.get(key, False), f"{path}.{key}") for key in ("log", "int"))
    whole = whole or KINDS[name] is int
    low, high = (_number(form.get(key), f"{path}.{key}", whole=whole) for key in ("low", "high"))
    # Before the range of values: a log scale's own message helps more where low is 0.
    if log and low <= 0:
        raise SpaceError(
            f"{path}: `low > 0` must hold for a log scale, got low={low:g}. Raise `low` or drop `log`."
        )
    for key, bound in (("low", low), ("high", high)):
        if claim := broken_claim(name, bound):
            raise SpaceError(f"{path}.{key}: must be {claim}, got {bound:g}. Change it.")
    if not low < high:
        raise SpaceError(
            f"{path}: `low < high` must hold, got low={low:g}, high={high:g}. Exchange or widen them."
        )
    step = None
    if form.get("step") is not None:
        step = _number(form["step"], f"{path}.step", whole=whole)
        _check_step(path, low=low, high=high, step=step, log=log)
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=step)


def _check_step(path: str, *, low: float, high: float, step: float, log: bool) -> None:
    if log:
        raise SpaceError(f"{path}: `log` and `step` exclude each other. Drop one of them.")
    reaches = step > 0 and _on_grid(high, low=low, step=step)
    # In binary 0.3 - 0.1 is less than 0.2.
    if step <= 0 or (step > high - low and not reaches):
        raise SpaceError(
            f"{path}.step: must be above 0 and at most high - low = {high - low:g}, got {step:g}. Change it."
        )
    if not reaches:
        top = low + math.floor((high - low) / step) * step
        raise SpaceError(
            f"{path}: steps of {step:g} from low={low:g} miss high={high:g}. Set `high` to {top:g} or "
            "change `step`."
        )


def _choices(name: str, node: object) -> tuple[IntDistribution | CategoricalDistribution, tuple[Value, ...]]:
    path = f"space.{name}.choices"
    if not isinstance(node, Sequence) or isinstance(node, str) or not node:
        raise SpaceError(f"{path}: a list of at least one value must stand here, got {shown(node)}.")
    values = [_choice(name, value, f"{path}[{k}]") for k, value in enumerate(node)]
    codes = [",".join(value) if isinstance(value, tuple) else value for value in values]
    for k, code in enumerate(codes):
        if code in codes[:k]:
            raise SpaceError(f"{path}: {shown(values[k])} stands there twice. Remove one.")
    if KINDS[name] in (int, float):
        return IntDistribution(0, len(values) - 1), tuple(sorted(cast("list[float]", values)))
    return CategoricalDistribution(codes), tuple(values)


def _choice(name: str, value: object, path: str) -> Value:
    kind = KINDS[name]
    if kind in (int, float):
        value = _number(value, path, whole=kind is int)
    elif kind is bool:
        value = _flag(value, path)
    elif name == "target_modules" and isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(value)
    if claim := broken_claim(name, value):
        raise SpaceError(f"{path}: must be {claim}, got {shown(value)}. Change it.")
    return cast("Value", value)


def _number(value: object, path: str, *, whole: bool) -> float:
    # YAML reads 1e-4, which has no point, as a string.
    try:
        number = math.nan if isinstance(value, bool) else float(cast("str", value))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        given = "nothing" if value is None else shown(value)
        raise SpaceError(f"{path}: a number must stand here, got {given}. {_FORMS}.")
    if not whole:
        return number
    if number != int(number):
        raise SpaceError(f"{path}: a whole number must stand here, got {number:g}. Round it.")
    return int(number)


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise SpaceError(f"{path}: true or false must stand here, got {shown(value)}.")
    return value


def _on_grid(value: float, *, low: float, step: float) -> bool:
    return _nearest_on_grid(value, low=low, step=step) == value


def _nearest_on_grid(value: float, *, low: float, step: float) -> float:
    # In binary 0.3 is no multiple of 0.1; in the decimals that people write, it is.
    start, width = Decimal(repr(low)), Decimal(repr(step))
    return float(start + round((Decimal(repr(value)) - start) / width) * width)


def _nearest(name: str, names: Sequence[str]) -> str:
    return difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
