"""A study's database that is away for a while: it is waited for, and no write is done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, OperationalError

from sweep.errors import OutageError
from sweep.search.delegate import Delegate

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# An interruption is noticed so soon.
_TICK_SECONDS = 0.1
# SQLSTATE: no connection, short of resources, shut down or starting, a deadlock or a lock that was not had in
# time, a server that only reads until it leads.
_PASSING = ("08", "53", "57P0", "40", "55P03", "25006")

_logger = logging.getLogger("sweep.search")


class Patient(Delegate):
    """Waits while the storage raises OutageError, `minutes` at most, and asks it again.

    What was asked is done once, though an answer may be lost: a trial is created as `Repeatable` does, one
    that was told stays as it was told, and everything else may be written twice. Raises OutageError when
    the time is over or `interrupt` was called.
    """

    def __init__(self, storage: BaseStorage, *, minutes: float) -> None:
        super().__init__(storage)
        self._minutes = minutes
        self._interrupted = False

    def interrupt(self) -> None:
        """Wait no more."""
        self._interrupted = True

    def _ask(self, call: Callable[[BaseStorage], T]) -> T:
        try:
            return call(self._storage)
        except OutageError as error:
            return self._again(call, error)

    def _again(self, call: Callable[[BaseStorage], T], error: OutageError) -> T:
        _logger.warning(
            "The study's database can't be reached: %s. What is in training in worker processes goes on; the "
            "database is waited for, %g min at most (storage_patience).",
            error.reason,
            self._minutes,
        )
        end, pause = time.monotonic() + self._minutes * 60, _FIRST_PAUSE_SECONDS
        while True:
            self._wait(min(pause, end - time.monotonic()))
            if self._interrupted:
                raise error
            try:
                answer = call(self._storage)
            except OutageError as again:
                if time.monotonic() >= end:
                    waited = f", and was waited for {self._minutes:g} min (storage_patience)"
                    raise OutageError(again.reason, waited) from again
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                _logger.warning("The study's database answers again; nothing is lost.")
                return answer

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._interrupted and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_SECONDS))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            stored = self.get_trial(trial_id)
            if (stored.state, stored.values) != (state, values if values is None else [*values]):
                raise
            return True


class Repeatable(RDBStorage):
    """Optuna's storage; a trial whose creation ended in OutageError is created once, if that is repeated.

    The template's number tells which trial it is. Only one driver may write to the study.
    """

    _unanswered = False

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        try:
            created = super()._create_new_trial(study_id, template_trial)
        except OutageError:
            self._unanswered = True
            raise
        self._unanswered = False
        return created

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> models.TrialModel:
        # Optuna holds a lock on the study by now, so the lost write is stored, or never will be.
        if self._unanswered and template_trial is not None:
            number = template_trial.number
            of_number = session.query(models.TrialModel).filter_by(study_id=study_id, number=number)
            stored: models.TrialModel | None = of_number.one_or_none()
            if stored is not None:
                return stored
        return super()._get_prepared_new_trial(study_id, template_trial, session)


def unreachable(context: ExceptionContext) -> OutageError | None:
    """The outage that an error of a database is, None if it is no outage."""
    error = context.sqlalchemy_exception
    if not isinstance(error, DBAPIError) or context.is_pre_ping:
        return None
    cause = context.original_exception
    code = str(getattr(cause, "sqlstate", None) or "")
    lost = context.is_disconnect or (context.connection is None and isinstance(error, OperationalError))
    if context.dialect.name == "sqlite":
        lost, code = "database is locked" in str(cause), ""
    if not lost and not code.startswith(_PASSING):
        return None
    return OutageError(_first_line(cause))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")
