"""The search space: which `Recipe` fields are searched, and recipes as Optuna's parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sweep.errors import SpaceError
from sweep.search import when as conditions
from sweep.search.parameter import Code, Distribution, Parameter
from sweep.search.ranges import Value, values_of
from sweep.types import Recipe

# Under these a shorter run is the beginning of a longer one, so runs of several lengths share rungs.
_WITHOUT_HORIZON = ("constant", "wsd")


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

    def to_mapping(self) -> dict[str, dict[str, object]]:
        """The spelled-out form: equal for equal spaces, whatever grammar they were written in."""
        return {parameter.name: parameter.to_mapping() for parameter in self.parameters}

    @property
    def conditional(self) -> bool:
        """Whether some parameter has a `when`."""
        return any(parameter.when for parameter in self.parameters)

    def distributions(self) -> dict[str, Distribution]:
        """Optuna's distribution of each parameter, conditional ones included."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def grid_size(self) -> int | None:
        """How many recipes there are (with a `when`, at most), None where one field is continuous."""
        sizes = [parameter.size() for parameter in self.parameters]
        return None if None in sizes else math.prod(cast("list[int]", sizes))

    def drawn(self, value: Callable[[str, Distribution], Code], defaults: Recipe) -> Recipe:
        """The recipe whose active parameters hold what `value` draws; the others come from `defaults`."""
        return _filled(self, defaults, lambda p: p.decode(value(p.name, p.distribution)))

    def encode(self, recipe: Recipe) -> dict[str, Code]:
        """Optuna's parameters of a recipe, active ones only. Raises SpaceError where it lies outside."""
        values = values_of(recipe)
        return {p.name: p.encode(values[p.name]) for p in self.parameters if _active(p, values)}

    def decode(self, parameters: Mapping[str, object], defaults: Recipe) -> Recipe:
        """The recipe of Optuna's parameters; what is not searched comes from `defaults`."""

        def value(parameter: Parameter) -> Value:
            if parameter.name not in parameters:
                raise SpaceError(
                    f"space.{parameter.name}: the trial was drawn from a space without it, which had "
                    f"{', '.join(parameters) or 'nothing'}. Restore that space or give the study a new name."
                )
            return parameter.decode(parameters[parameter.name])

        return _filled(self, defaults, value)

    def check(self, defaults: Recipe) -> None:
        """Nothing, or SpaceError: the recipe lies outside, or its schedule forbids searching `epochs`."""
        self.encode(defaults)
        searched = {parameter.name: parameter for parameter in self.parameters}
        if "epochs" not in searched:
            return
        schedule = searched.get("schedule")
        schedules = (schedule and schedule.choices) or (defaults.schedule,)
        if bound := [name for name in schedules if name not in _WITHOUT_HORIZON]:
            raise SpaceError(
                f"space.epochs: can't be searched under the {bound[0]} schedule, where a short run is not "
                "the beginning of a long one. Set recipe.schedule to constant or wsd and search no other, "
                "or leave epochs out with ~space.epochs."
            )


def _filled(space: Space, defaults: Recipe, value: Callable[[Parameter], Value]) -> Recipe:
    values: dict[str, Any] = {**values_of(defaults)}
    for parameter in space.parameters:
        if _active(parameter, values):
            values[parameter.name] = value(parameter)
    return replace(defaults, **values)


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
