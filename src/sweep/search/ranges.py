"""Which values a `Recipe` may hold. Bounds and choices of a search space obey the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import cast, get_args, get_type_hints

from sweep.errors import ConfigError
from sweep.types import Recipe, Schedule

Value = float | int | bool | str | tuple[str, ...]

KINDS: Mapping[str, object] = get_type_hints(Recipe)

_NUMBERS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("above 0", lambda x: x > 0),
    "batch_size": ("at least 1", lambda x: x >= 1),
    "weight_decay": ("at least 0", lambda x: x >= 0),
    "lora_rank": ("at least 1", lambda x: x >= 1),
    "lora_alpha": ("above 0", lambda x: x > 0),
    "lora_dropout": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "warmup_fraction": ("between 0 and 1", lambda x: 0 <= x <= 1),
    "epochs": ("above 0", lambda x: x > 0),
    "max_gradient_norm": ("above 0", lambda x: x > 0),
    "lora_plus_ratio": ("at least 1", lambda x: x >= 1),
}


def validate_recipe(recipe: Recipe, path: str = "recipe") -> None:
    """Nothing, or ConfigError: a value out of its range, named as `path`.<field>."""
    for name, value in values_of(recipe).items():
        if claim := broken_claim(name, value):
            raise ConfigError(f"{path}.{name}: must be {claim}, got {shown(value)}. Change {path}.{name}.")


def broken_claim(name: str, value: object) -> str | None:
    """What a value of this field must be and isn't, or None. The value's type is already right."""
    if name in _NUMBERS:
        claim, holds = _NUMBERS[name]
        number = cast("float", value)
        return None if math.isfinite(number) and holds(number) else claim
    if name == "schedule" and value not in get_args(Schedule):
        return f"one of {', '.join(get_args(Schedule))}"
    if name == "target_modules":
        # PEFT would take any other text for a pattern.
        named = isinstance(value, tuple) and value and all(isinstance(m, str) and m for m in value)
        if named or value == "all-linear":
            return None
        return "all-linear or a list of layer names such as [q_proj, v_proj]"
    return None


def values_of(recipe: Recipe) -> dict[str, Value]:
    """The recipe's values by field."""
    return {field.name: getattr(recipe, field.name) for field in fields(recipe)}


def shown(value: object) -> str:
    """The value as a person would write it in YAML, near enough."""
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list | tuple) else str(value)
