"""Searched parameters as axes from 0 to 1, tabulated at nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sweep.search.space import Space

Array = NDArray[np.float64]
Scale = Literal["linear", "log", "ordered", "categorical"]

NODES = 25
# Whole numbers up to so many are tabulated one by one: nobody trains 2.5 epochs by choice of 1, 2 or 3.
FEW = 16


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched parameter. low, high: of a linear or log scale. choices: of the other two, in order."""

    name: str
    scale: Scale
    low: float = 0.0
    high: float = 1.0
    choices: tuple[Any, ...] = ()

    @property
    def title(self) -> str:
        """The name as people write it."""
        return title(self.name)

    @property
    def discrete(self) -> bool:
        """Whether only `choices` occur."""
        return self.scale in ("ordered", "categorical")

    @property
    def nodes(self) -> Array:
        """Positions at which effects are tabulated: every choice, or an even grid."""
        return np.linspace(0.0, 1.0, len(self.choices) if self.discrete else NODES)

    @property
    def weights(self) -> Array:
        """Share of the search space that each node stands for; sums to 1."""
        weights = np.ones(len(self.nodes))
        if not self.discrete:
            weights[[0, -1]] = 0.5
        return np.asarray(weights / weights.sum())

    @property
    def values(self) -> list[Any]:
        """The parameter's values at the nodes."""
        if self.discrete:
            return list(self.choices)
        spaced = np.geomspace if self.scale == "log" else np.linspace
        return [float(value) for value in spaced(self.low, self.high, NODES)]

    def encode(self, values: Sequence[Any]) -> Array:
        """Positions in [0, 1]. Outside the range: the nearer end. An unknown category: NaN."""
        if self.scale == "categorical":
            places = {shown(choice): node for choice, node in zip(self.choices, self.nodes, strict=True)}
            return np.array([places.get(shown(value), np.nan) for value in values], dtype=float)
        numbers = np.asarray(values, dtype=float)
        ends: Sequence[float] = (self.low, self.high)
        if self.scale == "ordered":
            return np.asarray(np.interp(numbers, self.choices, self.nodes))
        if self.scale == "log":
            numbers, ends = np.log(np.maximum(numbers, np.finfo(float).tiny)), np.log(ends).tolist()
        return np.asarray(np.interp(numbers, ends, [0.0, 1.0]))

    def interpolation(self, positions: Array) -> Array:
        """Weights that turn values at the nodes into values at positions: points, nodes."""
        nodes = self.nodes
        return np.stack([np.interp(positions, nodes, unit) for unit in np.eye(len(nodes))], axis=1)


def axes_of(space: Space) -> tuple[Axis, ...]:
    """One axis per searched parameter. A conditional one stands at the recipe's value while inactive."""
    return tuple(_axis(name, node) for name, node in space.to_mapping().items())


def title(name: str) -> str:
    """A parameter's name as people write it: learning rate."""
    return name.replace("_", " ").replace("lora", "LoRA")


def sentence(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[0].upper() + text[1:]


def shown(value: object) -> str:
    """A parameter's value as people write it, to three digits: 3e-4, 0.125, 16, q_proj,v_proj."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').removesuffix('.')}e{int(exponent)}"


def _axis(name: str, node: dict[str, Any]) -> Axis:
    if "choices" in node:
        choices = tuple(tuple(c) if isinstance(c, list) else c for c in node["choices"])
        numeric = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in choices)
        return Axis(name=name, scale="ordered" if numeric else "categorical", choices=choices)
    low, high = node["low"], node["high"]
    if node["log"]:
        return Axis(name=name, scale="log", low=low, high=high)
    if node["int"]:
        counted = tuple(range(low, high + 1, node.get("step", 1)))
        if len(counted) <= FEW:
            return Axis(name=name, scale="ordered", choices=counted)
    return Axis(name=name, scale="linear", low=low, high=high)
