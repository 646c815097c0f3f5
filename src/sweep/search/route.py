"""How a trial comes to its loss: in one training, rung by rung, or as a cross-validation, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from optuna.pruners import WilcoxonPruner

from sweep.errors import ConfigError
from sweep.search.folds import Folds
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha, Pruned, Scheduler, TopK, Wilcoxon
from sweep.search.states import Needed
from sweep.search.stretch import Stretches
from sweep.types import Job, Recipe, Report, RowProbe, Standing, Verdict, View


class Route(Protocol):
    """Decides from a trial's standing and entries alone, and keeps nothing itself.

    ladder: where the longest recipe is judged, in examples that the trial was trained on in all; judged: on
    which rows. entries: the trial's, as stored.
    """

    ladder: tuple[int, ...]
    judged: tuple[View, ...]

    def rungs(self, recipe: Recipe) -> tuple[int, ...]:
        """Where a trial with this recipe is judged; the last one is its end."""

    def next_stop(self, standing: Standing) -> int:
        """Its next rung or, once it trains no more, the one whose state counts."""

    def is_judged(self, standing: Standing) -> bool:
        """Whether its loss is known: nothing is left to do."""

    def next_job(self, standing: Standing, entries: Mapping[str, Any]) -> Job:
        """The job to its next stop; that stands at the job's own stop and what was trained `before`."""

    def probed(self, job: Job, report: Report, entries: Mapping[str, Any]) -> Sequence[RowProbe] | None:
        """The rows by which guards judge now that the job has reported; None where they don't yet."""

    def kept(
        self,
        report: Report,
        stop: int,
        standing: Standing,
        entries: Mapping[str, Any],
        verdicts: Sequence[Verdict],
    ) -> tuple[str, str]:
        """Name and text of the entry that keeps what was found at a stop. standing: before it."""

    def whole(self, standing: Standing) -> tuple[int, int]:
        """How far its recipe is trained on the whole train split, and the schedule's horizon there."""

    def needed(self, standing: Standing, stopped: Mapping[str, Any] | None) -> Needed:
        """Its states that stay on disk. stopped: the entry of that name."""


def is_due_again(route: Route, standing: Standing) -> bool:
    """Whether a trial trains no more, and only the score of the state that counts is lacking."""
    return standing.state == "paused" and route.next_stop(standing) <= standing.reached


def check_route(scheduler: Scheduler, folds: int | None) -> None:
    """Nothing, or ConfigError: the scheduler compares what trials on this route don't have."""
    name = type(scheduler).__name__
    pairs = isinstance(scheduler, Wilcoxon) or isinstance(getattr(scheduler, "pruner", None), WilcoxonPruner)
    if folds is None and pairs:
        raise ConfigError(
            f"scheduler: {name} pairs trials by repeats of a training, and the rungs of a single one are no "
            "repeats: validation.folds must be a number. Write validation=kfold, or scheduler=asha."
        )
    if folds is not None and isinstance(scheduler, Asha | TopK | Pruned):
        raise ConfigError(
            f"scheduler: {name} stops trials by a part of their training, but with validation.folds={folds} "
            "each fold must be trained to its end, and folds differ among themselves. Write "
            "scheduler=wilcoxon, which compares trials on the same folds, or scheduler=full."
        )
    if folds is not None and isinstance(scheduler, Wilcoxon) and scheduler.soonest >= folds:
        raise ConfigError(
            f"scheduler: p_threshold={scheduler.p_threshold:g} and n_startup_steps="
            f"{scheduler.n_startup_steps} stop no trial before {scheduler.soonest} folds, as n folds give no "
            f"p below 1 / 2^n; that must be less than validation.folds={folds}. Write "
            f"validation.folds={scheduler.soonest + 1}, raise scheduler.p_threshold, or write scheduler=full."
        )


def route_of(plan: Plan, scheduler: Scheduler) -> Route:
    """The plan's, with the scheduler's rungs where there are no folds."""
    return Stretches(plan, scheduler) if plan.folds is None else Folds(plan, plan.folds)
