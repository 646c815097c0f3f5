"""What a sweep has spent, kept with its study over all starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import optuna

from sweep.search.allowance import Account, Bound, Spent, seconds_left
from sweep.search.entries import SECONDS, SPENT


class Ledger:
    """The sweep's clock runs from here on, the search's between `begin` and `end`.

    devices: those that each worker holds now.
    """

    def __init__(
        self,
        study: optuna.Study,
        bounds: Sequence[Bound],
        *,
        devices: Callable[[], Sequence[float]],
        clock: Callable[[], float],
    ) -> None:
        self._study = study
        self._bounds = bounds
        self._devices = devices
        self._clock = clock
        stored = study.user_attrs
        self._searched_before = float(stored.get(SECONDS, 0.0))
        before = Spent(*stored.get(SPENT, ()))
        self._account = Account(before, devices=lambda: sum(devices()), clock=clock)
        self._kept_at = -math.inf
        self._begun: float | None = None

    @property
    def devices(self) -> Sequence[float]:
        """Of each worker, how many it holds now; one at least, for without any nothing would be reckoned."""
        return self._devices() or (1,)

    @property
    def spent(self) -> Spent:
        """By the sweep, stages before and after the search included."""
        return self._account.spent()

    @property
    def seconds_spent(self) -> float:
        """Driver time of the search."""
        running = 0.0 if self._begun is None else self._clock() - self._begun
        return self._searched_before + running

    @property
    def seconds_left(self) -> float:
        """Of the search, until the first bound on what may be spent; negative beyond it."""
        return seconds_left(self._bounds, self.spent, devices=sum(self.devices))

    def begin(self) -> None:
        """The search begins, unless it has."""
        if self._begun is None:
            self._begun = self._clock()

    def end(self) -> None:
        """It is over."""
        self._searched_before, self._begun = self.seconds_spent, None
        self.keep()

    def keep(self, unless: float = 0.0) -> None:
        """Store what was spent; not where that was done less than `unless` seconds ago."""
        spent = self.spent
        if spent.seconds - self._kept_at >= unless:
            self._kept_at = spent.seconds
            self._study.set_user_attr(SECONDS, self.seconds_spent)
            self._study.set_user_attr(SPENT, list(spent))
