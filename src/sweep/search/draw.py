"""A sampler's proposal for a trial that is not stored yet."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import FrozenTrial, TrialState

from sweep.search.plan import Plan
from sweep.search.storage import UNSTORED, PausedAsPruned
from sweep.types import Recipe


def drawn(
    study: optuna.Study,
    storage: PausedAsPruned,
    make_sampler: Callable[[int], BaseSampler],
    plan: Plan,
    number: int,
) -> tuple[Recipe, dict[str, object]]:
    """The recipe of this trial, the plan's own for trial 0, and what the sampler notes of it.

    Seeded by hash(seed, trial number), so nothing is replayed after a restart.
    """
    with warnings.catch_warnings():
        # The configuration chose it; a warning at each ask would bury the live table.
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = make_sampler(_seed(plan.seed, number))
    seen = storage.judging_divergence() if isinstance(sampler, GPSampler) else nullcontext()
    with seen:
        draw = Draw(study, storage, sampler, number)
        return plan.space.drawn(draw.value, plan.defaults) if number else plan.defaults, draw.noted


class Draw:
    """The values that `sampler` proposes for trial `number`, parameter by parameter.

    Optuna's own trials store each parameter as it is suggested; one killed in between draws other
    values when it is completed. Nothing here is stored, so a draw is repeated or it counts. noted: what the
    sampler writes on a trial as it proposes it, such as the generation it is of, to be stored with it.
    """

    def __init__(
        self, study: optuna.Study, storage: PausedAsPruned, sampler: BaseSampler, number: int
    ) -> None:
        # Optuna keeps the history between `ask` and `tell`, and neither was called since the last draw.
        study._thread_local.cached_all_trials = None
        self._study = study
        self._sampler = sampler
        self._trial = FrozenTrial(
            number=number,
            trial_id=UNSTORED,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        sampler.before_trial(study, self._trial)
        space = sampler.infer_relative_search_space(study, self._trial)
        self._relative = sampler.sample_relative(study, self._trial, space)
        self.noted = storage.noted()

    def value(self, name: str, distribution: BaseDistribution) -> Any:
        """The proposed value, inside the distribution."""
        if name in self._relative:
            drawn = self._relative[name]
        else:
            drawn = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self._trial.distributions = {**self._trial.distributions, name: distribution}
        self._trial.params = {**self._trial.params, name: drawn}
        return drawn


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
