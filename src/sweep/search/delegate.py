"""A storage that stands before another one."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna._typing import JSONSerializable
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

T = TypeVar("T")


class Delegate(BaseStorage):
    """Asks `storage` for everything.

    Whatever is asked passes through `_ask`, and what is written to a trial through `_write` before.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def _ask(self, call: Callable[[BaseStorage], T]) -> T:
        return call(self._storage)

    def _write(self, trial_id: int, call: Callable[[BaseStorage], T]) -> T:
        return self._ask(call)

    # Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._ask(lambda storage: storage.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        self._ask(lambda storage: storage.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._ask(lambda storage: storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: JSONSerializable) -> None:
        self._ask(lambda storage: storage.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._ask(lambda storage: storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._ask(lambda storage: storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._ask(lambda storage: storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda storage: storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._ask(lambda storage: storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._ask(lambda storage: storage.get_all_studies())

    # Trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._ask(lambda storage: storage.get_all_trials(study_id, deepcopy, states))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._ask(lambda storage: storage.get_trial(trial_id))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        # BaseStorage's own reads all trials.
        return self._ask(
            lambda storage: storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._ask(lambda storage: storage.create_new_trial(study_id, template_trial))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._write(
            trial_id,
            lambda storage: storage.set_trial_param(trial_id, param_name, param_value_internal, distribution),
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._write(trial_id, lambda storage: storage.set_trial_state_values(trial_id, state, values))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._write(
            trial_id, lambda storage: storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write(trial_id, lambda storage: storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: JSONSerializable) -> None:
        self._write(trial_id, lambda storage: storage.set_trial_system_attr(trial_id, key, value))
