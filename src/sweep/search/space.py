"""The search space: which `Recipe` fields are searched, and recipes as Optuna's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.errors import SpaceError
from sweep.search import when as conditions
from sweep.search.parameter import Code, Distribution, Parameter
from sweep.search.ranges import values_of
from sweep.types import Recipe


@dataclass(frozen=True)
class Space:
    """Searched parameters, each after those that its `when` looks at.

    A parameter whose `when` doesn't hold is not searched: it takes the recipe's own value.
    """

    parameters: tuple[Parameter, ...]

    @classmethod
    def from_mapping(cls, node: Mapping[str, object]) -> Space:
        """The space spelled out, a mapping per `Recipe` field: see `Parameter.from_mapping`."""
        if not node:
            raise SpaceError("space: nothing is searched. Name a space (space=lora) or add a key to it.")
        return cls(_in_order([Parameter.from_mapping(str(name), form) for name, form in node.items()]))

    @property
    def names(self) -> list[str]:
        """The searched fields of the recipe."""
        return [parameter.name for parameter in self.parameters]

    def to_mapping(self) -> dict[str, dict[str, object]]:
        """The spelled-out form: equal for equal spaces, whatever grammar they were written in."""
        return {parameter.name: parameter.to_mapping() for parameter in self.parameters}

    def distributions(self) -> dict[str, Distribution]:
        """Optuna's distribution of each parameter, conditional ones included."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def drawn(self, value: Callable[[str, Distribution], Code], defaults: Recipe) -> Recipe:
        """The recipe whose active parameters hold what `value` draws; the others come from `defaults`."""
        values: dict[str, Any] = {**values_of(defaults)}
        for parameter in self.parameters:
            if _active(parameter, values):
                values[parameter.name] = parameter.decode(value(parameter.name, parameter.distribution))
        return replace(defaults, **values)

    def encode(self, recipe: Recipe) -> dict[str, Code]:
        """Optuna's parameters of a recipe, active ones only. Raises SpaceError where it lies outside."""
        values = values_of(recipe)
        return {p.name: p.encode(values[p.name]) for p in self.parameters if _active(p, values)}

    def check(self, defaults: Recipe) -> None:
        """Nothing, or SpaceError: the recipe lies outside."""
        self.encode(defaults)


def _active(parameter: Parameter, values: Mapping[str, object]) -> bool:
    return parameter.when is None or conditions.holds(parameter.when, values)


def _in_order(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters, each after those that its condition looks at, otherwise as given."""
    waiting = list(parameters)
    ordered: list[Parameter] = []
    while waiting:
        names = {parameter.name for parameter in waiting}
        ready = next((p for p in waiting if not (p.when and conditions.names(p.when) & names)), None)
        if ready is None:
            raise SpaceError(
                f"space: the conditions of {', '.join(sorted(names))} wait for each other. "
                "Drop the `when` of one."
            )
        waiting.remove(ready)
        ordered.append(ready)
    return tuple(ordered)
