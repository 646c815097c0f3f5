"""The study's storage as a sampler should see it."""

from __future__ import annotations

import copy
import re
import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna._typing import JSONSerializable
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, event, inspect, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from sweep.errors import StudyError
from sweep.redaction import redact

UNSTORED = -1
# Optuna's own, and the one that it makes last, whose name MLflow's database has too.
_TABLES = {"studies", "alembic_version"}


def open_storage(url: str) -> BaseStorage:
    """The storage behind a URL; "memory" keeps the study in this process only."""
    if url == "memory":
        return optuna.storages.InMemoryStorage()
    with _opening(url):
        storage = optuna.storages.RDBStorage(url)
    event.listen(storage.engine, "handle_error", _in_words)
    if storage.engine.dialect.name == "sqlite":
        event.listen(storage.engine, "connect", _write_ahead)
        storage.engine.dispose()
    return optuna.storages.get_storage(storage)


def open_stored(url: str) -> BaseStorage:
    """The storage behind a URL for who only reads: nothing is written.

    Raises StudyError if no sweep has stored a study there.
    """
    if url == "memory":
        raise StudyError(
            "storage=memory keeps the study in the process of its sweep, so no other command can read it. "
            "Sweep with storage=sqlite:///sweep.db."
        )
    shown = _shown(url)
    with suppress(SQLAlchemyError):
        given = make_url(url)
        if given.get_backend_name() == "sqlite" and not Path(given.database or "").is_file():
            raise StudyError(
                f"storage={shown}: there is no file {given.database} here ({Path.cwd()}), so no sweep has "
                "begun. Change to the folder of the sweep, correct storage=, or begin the sweep."
            )
    with _opening(url):
        # Optuna would make what is missing: it must not find anything missing.
        if missing := _TABLES - _tables(url):
            raise StudyError(
                f"storage={shown} holds no study: it lacks Optuna's tables {', '.join(sorted(missing))}. "
                "A sweep makes them at its start. Correct storage=, or begin the sweep."
            )
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
    event.listen(storage.engine, "handle_error", _in_words)
    return optuna.storages.get_storage(storage)


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """Raises StudyError, without the password, for what opening the URL raises."""
    try:
        yield
    except RuntimeError as error:
        url = _shown(url)
        raise StudyError(
            f"storage={url} has the tables of another version of Optuna than the installed "
            f"{optuna.__version__}. Back it up and run `optuna storage upgrade --storage {url}`; if they are "
            "newer, install that Optuna. Or start anew with another storage."
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise StudyError(
            f"storage={_shown(url)} could not be opened ({_reason(error)}). It must be an "
            "SQLAlchemy URL such as sqlite:///sweep.db or postgresql+psycopg://user@host/database, whose "
            "folder or server exists and whose driver is installed. Check the URL."
        ) from error


def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def _in_words(context: ExceptionContext) -> StudyError | None:
    """What a person can mend, in place of the driver's error, which Optuna would hide."""
    reason = str(context.original_exception)
    if not any(sign in reason for sign in ("disk is full", "readonly", "disk I/O")):
        return None
    return StudyError(
        f"storage: the study could not be written: {reason}. Free space, or make its file and folder "
        "writable, then start the same command again: it goes on with what is stored."
    )


def _write_ahead(connection: Any, record: object) -> None:
    """A killed process loses nothing, only a power cut may lose the last moments; 8 times fewer syncs."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _reason(error: Exception) -> str:
    """The kind of error; what a file's driver says, for its addresses hold no password."""
    cause = getattr(error, "orig", None)
    return str(cause) if isinstance(cause, sqlite3.Error) else type(error).__name__


def _shown(url: str) -> str:
    return "(not a URL)" if "://" not in url and re.search("[@=]", url) else str(redact(url))


class PausedAsPruned(BaseStorage):
    """Delegates to `storage`, but shows RUNNING trials that `is_paused` as PRUNED.

    A paused trial is not bad. Left RUNNING, TPE's constant liar counts it so; as PRUNED its
    intermediate value ranks it among its like. Nothing of this is ever written, nor what samplers
    note down about a trial that is not stored yet.

    Nobody else may write to the study's trials: one is read when it is first needed, and again only
    after it was written through here. Who reads must not change what it gets.
    """

    def __init__(self, storage: BaseStorage, is_paused: Callable[[int], bool]) -> None:
        self._storage = storage
        self._is_paused = is_paused
        self._judged = False
        self._noted: dict[str, Any] = {}
        # As last read, by id, without those written since; the ids of each study, by number.
        self._trials: dict[int, FrozenTrial] = {}
        self._ids: dict[int, tuple[int, ...]] = {}

    @contextmanager
    def judging_divergence(self) -> Iterator[None]:
        """Inside, a trial with a violated constraint is shown as COMPLETE, with the others' worst values.

        For a sampler that learns from COMPLETE trials alone: it would propose the same again and again.
        """
        self._judged = True
        try:
            yield
        finally:
            self._judged = False

    def noted(self) -> dict[str, Any]:
        """What a sampler wrote, since the last call, on the trial that it draws."""
        noted, self._noted = self._noted, {}
        return noted

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if study_id not in self._ids:
            read = self._storage.get_all_trials(study_id, deepcopy=False)
            self._trials |= {trial._trial_id: trial for trial in read}
            self._ids[study_id] = tuple(trial._trial_id for trial in read)
        trials = [self._shown(self.get_trial(trial_id)) for trial_id in self._ids[study_id]]
        if self._judged:
            trials = _all_judged(trials, self.get_study_directions(study_id))
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._trials:
            self._trials[trial_id] = self._storage.get_trial(trial_id)
        return self._trials[trial_id]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        # BaseStorage's own reads all trials.
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.state is not TrialState.RUNNING or not self._is_paused(trial.number):
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.PRUNED
        return shown

    def _written(self, trial_id: int) -> BaseStorage:
        """The storage to write this trial to: even of a write that fails, something may be there."""
        self._trials.pop(trial_id, None)
        return self._storage

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._ids.pop(study_id, None)
        self._storage.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: JSONSerializable) -> None:
        self._storage.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._storage.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        # Put back only once it is known: after a write that fails, all are read again.
        ids = self._ids.pop(study_id, None)
        trial_id = self._storage.create_new_trial(study_id, template_trial)
        if ids is not None:
            self._ids[study_id] = (*ids, trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._written(trial_id).set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._written(trial_id).set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._written(trial_id).set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._written(trial_id).set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: JSONSerializable) -> None:
        if trial_id == UNSTORED:
            self._noted[key] = value
            return
        self._written(trial_id).set_trial_system_attr(trial_id, key, value)


def _all_judged(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    told = [trial.values for trial in complete if not _violates(trial)]
    if not told:
        return trials
    worst = [
        min(values) if direction is StudyDirection.MAXIMIZE else max(values)
        for values, direction in zip(zip(*told, strict=True), directions, strict=True)
    ]
    return [_judged(trial, worst) for trial in trials]


def _violates(trial: FrozenTrial) -> bool:
    told = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return told and any(value > 0 for value in trial.constraints.values())


def _judged(trial: FrozenTrial, worst: list[float]) -> FrozenTrial:
    """The trial without its constraints: one that violates them is complete with the worst values."""
    shown = copy.copy(trial)
    if _violates(trial):
        shown.state, shown.values = TrialState.COMPLETE, worst
    # GPSampler refuses a history in which only some trials have a constraint.
    shown.system_attrs = {}
    return shown
