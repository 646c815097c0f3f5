"""What a sweep may spend, what it has spent, and how long the rest lasts: driver time, device hours, money.

A device is paid for while it is held, so what counts is the driver's time, times the devices held
meanwhile, whether they train or wait.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sweep.errors import ConfigError
from sweep.schema import require

# Of what is given; the rest is for what follows the search.
SEARCH_SHARE = 0.8


class Spent(NamedTuple):
    """By a whole sweep, over all starts. seconds: the driver's; device_seconds: of all devices held then."""

    seconds: float = 0.0
    device_seconds: float = 0.0

    @property
    def device_hours(self) -> float:
        return self.device_seconds / 3600


class Bound(NamedTuple):
    """A bound of what a sweep may spend, so many of a unit. key: below `budget` in the configuration.

    per_second, per_device_second: what one of these takes of it.
    """

    key: str
    most: float
    unit: str
    per_second: float
    per_device_second: float

    def used(self, spent: Spent) -> float:
        """Of the unit."""
        return spent.seconds * self.per_second + spent.device_seconds * self.per_device_second

    def seconds_left(self, spent: Spent, *, devices: float, share: float = 1.0) -> float:
        """Until so many devices have used up that share of it; negative where more was used."""
        rate = self.per_second + devices * self.per_device_second
        return (share * self.most - self.used(spent)) / rate


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a sweep may spend, earlier starts included; None for no limit. trials: of the search.

    minutes: of wall clock. gpu_hours: of all devices. cost: in the currency, what these hours are worth at
    the price, None exactly where the cost is. disk_gb: 10^9 bytes below `checkpoints`, None for what is free.
    """

    trials: int
    minutes: float | None
    gpu_hours: float | None
    cost: float | None
    price_per_device_hour: float | None
    currency: str
    disk_gb: float | None

    def __post_init__(self) -> None:
        require("budget.trials", self.trials, self.trials >= 1, "at least 1")
        for key in ("minutes", "gpu_hours", "cost"):
            given = getattr(self, key)
            require(f"budget.{key}", given, given is None or given > 0, "above 0, or null for no limit")
        disk, price = self.disk_gb, self.price_per_device_hour
        require("budget.disk_gb", disk, disk is None or disk > 0, "above 0, or null for what is free")
        require("budget.price_per_device_hour", price, price is None or price > 0, "above 0, or null")
        if self.cost is not None and price is None:
            raise ConfigError(
                f"budget.cost: {self.cost:g} {self.currency} can't be counted in hours while "
                "budget.price_per_device_hour is null; it must be what a device costs an hour. Write "
                "budget.price_per_device_hour=2.5, or bound the hours themselves with budget.gpu_hours."
            )
        if self.cost is None and price is not None:
            raise ConfigError(
                f"budget.price_per_device_hour: {price:g} limits nothing while budget.cost is null; both "
                "must be given, or neither. Write budget.cost=20, or budget.price_per_device_hour=null."
            )
        require("budget.currency", self.currency, self.currency.strip(), "a name, such as EUR")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Those that are given, beside the number of trials."""
        bounds = []
        if self.minutes is not None:
            bounds.append(Bound("minutes", self.minutes, "min", 1 / 60, 0.0))
        if self.gpu_hours is not None:
            bounds.append(Bound("gpu_hours", self.gpu_hours, "GPU h", 0.0, 1 / 3600))
        if self.cost is not None and self.price_per_device_hour is not None:
            price = self.price_per_device_hour
            bounds.append(Bound("cost", self.cost, self.currency, 0.0, price / 3600))
        return tuple(bounds)


def first_reached(bounds: Sequence[Bound], spent: Spent, *, devices: float) -> Bound | None:
    """The one that ends a search on so many devices, None without any."""
    return min(
        bounds, key=lambda bound: bound.seconds_left(spent, devices=devices, share=SEARCH_SHARE), default=None
    )


def seconds_left(
    bounds: Sequence[Bound], spent: Spent, *, devices: float, share: float = SEARCH_SHARE
) -> float:
    """Until so many devices have used up a share, the search's, of one of them; infinite without any."""
    return min(
        (bound.seconds_left(spent, devices=devices, share=share) for bound in bounds), default=math.inf
    )


class Account:
    """What a sweep spends from now on, added to what it spent before. devices: how many it holds."""

    def __init__(self, before: Spent, *, devices: Callable[[], float], clock: Callable[[], float]) -> None:
        self._spent = before
        self._devices = devices
        self._clock = clock
        self._read_at = clock()
        # The live table asks from a thread of its own.
        self._reading = threading.Lock()

    def spent(self) -> Spent:
        """Up to now. Devices that came or went since the last reading count as if they did so then."""
        with self._reading:
            now = self._clock()
            passed, self._read_at = now - self._read_at, now
            self._spent = Spent(
                self._spent.seconds + passed, self._spent.device_seconds + passed * self._devices()
            )
            return self._spent
