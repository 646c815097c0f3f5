"""A sampler's proposal for a trial that is not stored yet."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweep.search.storage import UNSTORED, PausedAsPruned


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
