"""What few rows can't bear: ranks and epochs by which they would be learnt by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.schema import require
from sweep.search.space import Space
from sweep.types import Recipe


@dataclass(frozen=True, kw_only=True)
class SmallData:
    """rows: of the train split, below which the caps hold; None for never. The caps are included."""

    rows: int | None
    rank_max: int
    epochs_max: float

    def __post_init__(self) -> None:
        rows = self.rows
        require("small_data.rows", rows, rows is None or rows >= 1, "at least 1, or null for no caps")
        require("small_data.rank_max", self.rank_max, self.rank_max >= 1, "at least 1")
        require("small_data.epochs_max", self.epochs_max, self.epochs_max > 0, "above 0")

    def concerns(self, train_rows: int) -> bool:
        """Whether so few rows are small data."""
        return self.rows is not None and train_rows < self.rows


@dataclass(frozen=True, kw_only=True)
class Capped:
    """A space and the recipe inside it. notes: what was taken away, for people."""

    space: Space
    defaults: Recipe
    notes: tuple[str, ...]


def offer(name: str, *, train_rows: int, small: SmallData) -> tuple[str, ...]:
    """What few rows are better judged by, for people. name: of the study, beside which that begins anew."""
    if not small.concerns(train_rows):
        return ()
    return (
        f"{train_rows} train rows are few: validation=kfold scheduler=wilcoxon name={name}_kfold judges each "
        "trial by all of them and the validation rows, in up to five trainings",
    )


def capped(space: Space, defaults: Recipe, *, train_rows: int, small: SmallData) -> Capped:
    """Both without ranks and epochs beyond the caps, where the train split is small.

    A parameter of which a single value is left is searched no more.
    """
    if not small.concerns(train_rows):
        return Capped(space=space, defaults=defaults, notes=())
    forms = space.to_mapping()
    values: dict[str, Any] = {}
    notes = []
    for name, cap in (("lora_rank", small.rank_max), ("epochs", small.epochs_max)):
        value, form = getattr(defaults, name), forms.get(name)
        left = _below(form, cap) if form else [value] if value <= cap else [cap]
        if form and len(left) > 1:
            forms[name] = {**form, **_bounds(form, left)}
        else:
            forms.pop(name, None)
        values[name] = value if left[0] <= value <= left[-1] else left[-1]
        largest = max([value, *_ends(form)] if form else [value])
        if largest > left[-1]:
            notes.append(
                f"{train_rows} train rows are few: recipe.{name} goes up to {left[-1]:g} instead of "
                f"{largest:g}, so that they are not learnt by heart; small_data.rows=null lifts that"
            )
    return Capped(space=Space.from_mapping(forms), defaults=replace(defaults, **values), notes=tuple(notes))


def _ends(form: Mapping[str, Any]) -> list[Any]:
    """The choices, or the bounds."""
    return list(form["choices"]) if "choices" in form else [form["low"], form["high"]]


def _below(form: Mapping[str, Any], cap: float) -> list[Any]:
    """The same up to the cap, ascending; the smallest value where all lie beyond."""
    ends = sorted(_ends(form))
    kept = [end for end in ends if end <= cap] or ends[:1]
    return kept if "choices" in form or len(kept) > 1 or kept[0] >= cap else [*kept, cap]


def _bounds(form: Mapping[str, Any], left: Sequence[Any]) -> dict[str, Any]:
    return {"choices": list(left)} if "choices" in form else {"low": left[0], "high": left[-1]}
