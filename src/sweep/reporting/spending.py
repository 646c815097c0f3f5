"""What a sweep has spent and what its budget leaves, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweep.reporting.live import duration
from sweep.search.allowance import Bound, Spent
from sweep.search.stored import StoredStudy


def spent_of(bounds: Sequence[Bound], spent: Spent) -> str:
    """Of each bound, such as `3.20 of 8 GPU h spent; left: 4.80 GPU h`; empty without any."""
    used = ", ".join(used_of(bounds, spent).values())
    return f"{used} spent; left: {left_of(bounds, spent)}" if used else ""


def left_of(bounds: Sequence[Bound], spent: Spent) -> str:
    """Of each bound, such as `4.80 GPU h, 12.0 EUR`, none below 0."""
    rests = [(bound, max(bound.most - bound.used(spent), 0.0)) for bound in bounds]
    return ", ".join(f"{_amount(rest, bound.most)} {bound.unit}" for bound, rest in rests)


def total_of(bounds: Sequence[Bound], spent: Spent) -> str:
    """Time, device hours and, where it is counted, money; each with its bound, if it has one."""
    used = used_of(bounds, spent)
    time = used.get("minutes", duration(spent.seconds))
    hours = used.get("gpu_hours", f"{hours_of(spent)} device h")
    return ", ".join([time, hours, *([used["cost"]] if "cost" in used else [])])


def budget_of(study: StoredStudy) -> str:
    """What the sweep may spend, such as `32 trials, 8 GPU h, 20 EUR at 2.5 an hour`."""
    asked = study.notes.budget
    given = [f"{bound.most:,.10g} {bound.unit}" for bound in study.bounds]
    price = f" at {asked.price_per_device_hour:g} an hour" if asked and asked.cost else ""
    return ", ".join([f"{study.trials} trials", *given]) + price


def used_of(bounds: Sequence[Bound], spent: Spent) -> dict[str, str]:
    """By the key of each bound, such as `3.20 of 8 GPU h`."""
    return {
        bound.key: f"{_amount(bound.used(spent), bound.most)} of {bound.most:,.10g} {bound.unit}"
        for bound in bounds
    }


def hours_of(spent: Spent) -> str:
    """Device hours, to three digits or all of those before the point."""
    hours = spent.device_hours
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


def _amount(value: float, most: float) -> str:
    """With as many decimals as leave three digits at the bound."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(most)))}f}"
