"""Whether there is room on disk for what a search begins, and what goes where there is none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence

from sweep.search.disk import Disk
from sweep.search.scheduler import Scheduler
from sweep.search.standings import Standings
from sweep.types import Standing

_logger = logging.getLogger("sweep.search")


class Room:
    """For the states of one study's trials. trials: to be run in all.

    goes_on: whether the trial of this number does, whatever the scheduler says.
    """

    def __init__(
        self,
        disk: Disk,
        standings: Standings,
        *,
        scheduler: Scheduler,
        ladder: Sequence[int],
        trials: int,
        goes_on: Callable[[int], bool],
    ) -> None:
        self._disk = disk
        self._standings = standings
        self._scheduler = scheduler
        self._ladder = ladder
        self._trials = trials
        self._goes_on = goes_on
        self._reports_since_dropped = 0
        self._has_told = False

    def allows(self, *, out: int) -> bool:
        """One more trial beside so many in training: each writes a state before an older one goes.

        The first time that it does not, a warning says so.
        """
        needed = 2 * (out + 1)
        fits = self._disk.fits(needed) or self.make(needed)
        if not fits and not self._has_told:
            self._has_told = True
            _logger.warning(
                "checkpoints: %s has room for %s more bytes, and a checkpoint takes %s: no trial is begun "
                "while it is so, and if it stays so, the search ends with those that were. Free space, or "
                "raise budget.disk_gb; started again, the same command begins the others, and those that are "
                "paused go on among them.",
                self._disk.place,
                f"{max(0, math.floor(self._disk.left_bytes)):,}",
                f"{self._disk.state_bytes:,}",
            )
        return fits

    def make(self, states: int) -> bool:
        """Whether so many more states fit, once those that are spare went, as many as that takes.

        First the state before the newest of paused trials, then those of complete ones, the worst first.
        """
        complete = [one for one in self._standings if one.state == "complete"]
        worst = sorted(complete, key=lambda one: -one.loss)
        return self._fits_without(states, [*self._paused, *worst], self._disk.drop_spare)

    def clear(self, states: int) -> bool:
        """The same for what follows the search: states of paused trials go too, the least trained first.

        Whoever of them goes on begins again.
        """
        return self.make(states) or self._fits_without(
            states, sorted(self._paused, key=lambda one: one.reached), self._disk.drop
        )

    def _fits_without(self, states: int, spared: Iterable[Standing], drop: Callable[[str], None]) -> bool:
        for standing in spared:
            if self._disk.fits(states):
                break
            drop(standing.trial.id)
        return self._disk.fits(states)

    @property
    def _paused(self) -> list[Standing]:
        return [self._standings[number] for number in self._standings.paused]

    def after_report(self) -> None:
        """`drop_hopeless`, but not at each report, as it looks at all."""
        self._reports_since_dropped += 1
        if 8 * self._reports_since_dropped > len(self._standings):
            self.drop_hopeless()

    def drop_hopeless(self) -> None:
        """Remove states of trials that can't be chosen any more."""
        self._reports_since_dropped = 0
        for trial in self._scheduler.out(self._standings, self._ladder, trials=self._trials):
            if not self._goes_on(int(trial)):
                self._disk.drop(trial)
