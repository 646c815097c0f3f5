"""The study's storage as a sampler should see it."""

from __future__ import annotations

import copy
import re
import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna._typing import JSONSerializable
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from sweep.errors import StudyError
from sweep.search.delegate import Delegate
from sweep.search.outage import Repeatable, unreachable

UNSTORED = -1
T = TypeVar("T")
# By libpq's own settings a server that vanished without a word is noticed after two hours. Seconds, and
# milliseconds.
_NOTICED = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Optuna's own, and the one that it makes last, whose name MLflow's database has too.
_TABLES = {"studies", "alembic_version"}


def open_storage(url: str) -> BaseStorage:
    """The storage behind a URL; "memory" keeps the study in this process only.

    There is one connection to PostgreSQL, by which `only_writer` locks the study.
    """
    if url == "memory":
        return optuna.storages.InMemoryStorage()
    with _opening(url), _tables_made_once(url):
        storage = Repeatable(url, engine_kwargs=_noticing(url))
    storage.remove_session()
    storage.engine.dispose()
    if storage.engine.dialect.name == "postgresql":
        # Only now: Optuna sets its tables up with two, one inside the other.
        storage.engine = create_engine(storage.url, **storage.engine_kwargs, pool_size=1, max_overflow=0)
        storage.scoped_session.configure(bind=storage.engine)
    elif storage.engine.dialect.name == "sqlite":
        event.listen(storage.engine, "connect", _write_ahead)
    event.listen(storage.engine, "handle_error", _in_words)
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
    shown = _without_password(url)
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


def _noticing(url: str) -> dict[str, Any]:
    """SQLAlchemy's settings, by which a connection that was lost is noticed before it is used, or soon."""
    given = make_url(url)
    if given.get_backend_name() != "postgresql":
        return {}
    libpq = given.get_driver_name() in ("psycopg", "psycopg2")
    settings = {key: value for key, value in _NOTICED.items() if libpq and key not in given.query}
    return {"pool_pre_ping": True, "connect_args": settings}


@contextmanager
def _tables_made_once(url: str) -> Iterator[None]:
    """Sweeps that start at once in an empty PostgreSQL wait for each other; else only one could start."""
    if make_url(url).get_backend_name() != "postgresql":
        yield
        return
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtextextended('sweep', 0))"))
        yield


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """Raises StudyError, without the password, for what opening the URL raises."""
    try:
        yield
    except RuntimeError as error:
        url = _without_password(url)
        raise StudyError(
            f"storage={url} has the tables of another version of Optuna than the installed "
            f"{optuna.__version__}. Back it up and run `optuna storage upgrade --storage {url}`; if they are "
            "newer, install that Optuna. Or start anew with another storage."
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise StudyError(
            f"storage={_without_password(url)} could not be opened ({_reason(error)}). It must be an "
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
    """What passes, or what a person can mend, in place of the driver's error, which Optuna would hide."""
    if outage := unreachable(context):
        return outage
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
    """The kind of error; what a file's driver or a server says, where it can hold no password."""
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return str(cause)
    if type(cause).__module__.startswith("psycopg") and " failed: " in str(cause):
        return str(cause).partition("\n")[0].rpartition(" failed: ")[2]
    return type(error).__name__


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(not a URL)" if re.search("[@=]", url) else url


class PausedAsPruned(Delegate):
    """Delegates to `storage`, but shows RUNNING trials that `is_paused` as PRUNED.

    A paused trial is not bad. Left RUNNING, TPE's constant liar counts it so; as PRUNED its
    intermediate value ranks it among its like. Nothing of this is ever written, nor what samplers
    note down about a trial that is not stored yet.

    Nobody else may write to the study's trials: one is read when it is first needed, and again only
    after it was written through here. Who reads must not change what it gets.
    """

    def __init__(self, storage: BaseStorage, is_paused: Callable[[int], bool]) -> None:
        super().__init__(storage)
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
            read = super().get_all_trials(study_id, deepcopy=False)
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
            self._trials[trial_id] = super().get_trial(trial_id)
        return self._trials[trial_id]

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.state is not TrialState.RUNNING or not self._is_paused(trial.number):
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.PRUNED
        return shown

    def _write(self, trial_id: int, call: Callable[[BaseStorage], T]) -> T:
        # Even of a write that fails, something may be there.
        self._trials.pop(trial_id, None)
        return super()._write(trial_id, call)

    def delete_study(self, study_id: int) -> None:
        self._ids.pop(study_id, None)
        super().delete_study(study_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        # Put back only once it is known: after a write that fails, all are read again.
        ids = self._ids.pop(study_id, None)
        trial_id = super().create_new_trial(study_id, template_trial)
        if ids is not None:
            self._ids[study_id] = (*ids, trial_id)
        return trial_id

    def set_trial_system_attr(self, trial_id: int, key: str, value: JSONSerializable) -> None:
        if trial_id == UNSTORED:
            self._noted[key] = value
            return
        super().set_trial_system_attr(trial_id, key, value)


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
