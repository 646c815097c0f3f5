"""The trials of a study in Optuna: what is stored of each, and what Optuna is told of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.errors import StudyError
from sweep.search.aims import directions, told
from sweep.search.draw import drawn
from sweep.search.entries import GUARDS, RECIPE, on_its_way, standing_of
from sweep.search.plan import Plan
from sweep.search.route import Route, is_due_again
from sweep.search.scheduler import Scheduler
from sweep.search.standings import Standings
from sweep.search.storage import PausedAsPruned
from sweep.types import Standing


class Trials:
    """As they are stored. To samplers and pruners those that are paused in `standings` are shown as pruned.

    study: Optuna's.
    """

    def __init__(
        self, plan: Plan, storage: BaseStorage, *, route: Route, scheduler: Scheduler, standings: Standings
    ) -> None:
        self._plan = plan
        self._route = route
        self._scheduler = scheduler
        self._storage = PausedAsPruned(storage, standings.is_paused)
        self.study = optuna.create_study(
            study_name=plan.name,
            storage=self._storage,
            directions=directions(plan),
            load_if_exists=True,
        )

    def studies(self) -> list[FrozenStudy]:
        """All in the same storage."""
        return self._storage.get_all_studies()

    def frozen(self, number: int) -> FrozenTrial:
        """As Optuna stores it."""
        return self._storage.get_trial(self._id(number))

    def entries(self, number: int) -> Mapping[str, Any]:
        """What is kept of it, by the names of `entries`."""
        return self.frozen(number).user_attrs

    def put(self, number: int, key: str, value: object) -> None:
        """Keep one of them."""
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def begin(self, number: int, sampler: Callable[[int], BaseSampler]) -> None:
        """A new trial, stored with its recipe in one write: there is no half of it to recover."""
        plan = self._plan
        recipe, noted = drawn(self.study, self._storage, sampler, plan, number)
        distributions, parameters = plan.space.distributions(), plan.space.encode(recipe)
        trial = create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions={name: distributions[name] for name in parameters},
            user_attrs={RECIPE: asdict(recipe)},
            system_attrs=noted,
        )
        # By which a storage knows it, if it wrote it and its answer was lost.
        trial.number = number
        stored = self._storage.create_new_trial(self.study._study_id, trial)
        if self._storage.get_trial(stored).number != number:
            raise StudyError(
                f"Another driver added trials to the study {plan.name!r} in the same storage. One study "
                "has one driver: stop the other, then start again."
            )

    def settled(self, number: int) -> Standing:
        """Where it stands, once Optuna's view is in line with its entries. Repeating it changes nothing."""
        frozen, standing = self.frozen(number), self._stored(number)
        if frozen.state.is_finished():
            return standing
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        # Optuna takes reports of one objective alone.
        for step, loss in standing.steps.items() if self._plan.aimed_by is None else ():
            if step not in frozen.intermediate_values:
                trial.report(loss, step)
        return self._told(trial, standing)

    def prune(self, number: int) -> None:
        """It goes no further."""
        self.study.tell(number, state=TrialState.PRUNED)

    def _told(self, trial: optuna.Trial, standing: Standing) -> Standing:
        number = trial.number
        if standing.state in ("diverged", "infeasible"):
            # Told FAIL, TPE would go on proposing that region; as PRUNED and infeasible it leaves it.
            beyond, shown = max(standing.steps, default=0) + 1, self.frozen(number).intermediate_values
            if self._plan.aimed_by is None and beyond not in shown:
                trial.report(math.nan, beyond)
            _constrain(trial, standing.state, 1.0)
            self.prune(number)
        elif standing.state == "failed":
            self.study.tell(number, state=TrialState.FAIL)
        elif self._route.is_judged(standing):
            if standing.verdicts:
                _constrain(trial, GUARDS, standing.violation)
            self.study.tell(number, told(standing))
        elif self._is_given_up(standing):
            self.prune(number)
        return self._stored(number)

    def _is_given_up(self, standing: Standing) -> bool:
        frozen = self.frozen(int(standing.trial.id))
        # Who goes on has been asked about: pruners may answer otherwise once others have reported.
        if is_due_again(self._route, standing) or on_its_way(frozen.user_attrs, standing.reached):
            return False
        return not self._scheduler.keeps(self.study, frozen)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _stored(self, number: int) -> Standing:
        plan = self._plan
        return standing_of(self.frozen(number), seed=plan.seed, base=plan.base, folds=plan.folds)


def _constrain(trial: optuna.Trial, name: str, value: float) -> None:
    """Before `tell`, for a finished trial takes no constraint; Optuna warns of one that it has already."""
    if name not in trial.constraints:
        trial.set_constraint(name, value)
