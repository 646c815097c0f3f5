"""Which storages can be opened, and what samplers see of them."""

from __future__ import annotations

import math
import random
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from sweep.errors import StudyError
from sweep.search.storage import PausedAsPruned, open_storage, open_stored

ENDS = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
OPERATIONS = ("add", "add", "note", "report", "constrain", "end", "pause", "look")


@pytest.mark.parametrize("revision", ["v3.0.0.d", "v99.0.0.a"])
def test_tables_of_another_optuna_say_how_to_upgrade_them(revision: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    open_storage(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    with pytest.raises(StudyError) as error:
        open_storage(f"sqlite:///{file}")
    assert f"`optuna storage upgrade --storage sqlite:///{file}`" in str(error.value)


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'sweep.db'}")
    assert isinstance(storage, _CachedStorage)
    engine = storage._backend.engine
    # SQLite's own limit fails as a full disk does.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    engine.dispose()
    study = storage.create_new_study([StudyDirection.MINIMIZE], "full")
    with pytest.raises(
        StudyError, match=r"database or disk is full\. Free space, or make its file and folder"
    ):
        [storage.set_study_user_attr(study, f"key_{number}", "x" * 1000) for number in range(100)]
    storage.remove_session()
    engine.dispose()


def test_a_file_that_can_not_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"could not be opened \(unable to open database file\)"):
        open_storage(f"sqlite:///{tmp_path / 'absent' / 'sweep.db'}")


@pytest.mark.parametrize(("url", "told"), [("nonsense", "nonsense"), ("me:secret@host", "(not a URL)")])
def test_what_is_no_url_is_shown_where_it_can_hold_no_password(url: str, told: str) -> None:
    with pytest.raises(StudyError) as error:
        open_storage(url)
    assert str(error.value).startswith(f"storage={told} could not be opened")


def write_nothing(file: Path) -> None:
    """An empty file."""
    file.touch()


def write_tables_of_another_program(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('1bd49d398cd23')")
        connection.execute("CREATE TABLE experiments (name TEXT)")


@pytest.mark.parametrize("write", [write_nothing, write_tables_of_another_program])
def test_who_reads_leaves_a_database_without_studies_as_it_is(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    write(file)
    before = file.read_bytes()
    with pytest.raises(StudyError) as error:
        open_stored(f"sqlite:///{file}")
    assert str(error.value).startswith(f"storage=sqlite:///{file} holds no study: it lacks Optuna's tables")
    assert file.read_bytes() == before
    assert [*tmp_path.iterdir()] == [file]


def test_who_reads_leaves_a_study_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    written = RDBStorage(f"sqlite:///{file}")
    study = written.create_new_study([StudyDirection.MINIMIZE], "mine")
    written.remove_session()
    written.engine.dispose()
    before = file.read_bytes()
    assert open_stored(f"sqlite:///{file}").get_study_id_from_name("mine") == study
    assert file.read_bytes() == before
    assert [*tmp_path.iterdir()] == [file]


def test_what_is_no_database_says_so_to_who_reads(tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    file.write_text("text " * 1000)
    with pytest.raises(StudyError, match=r"could not be opened \(file is not a database\)"):
        open_stored(f"sqlite:///{file}")


@pytest.mark.parametrize("url", ["oracle://me:secret@host/sweeps", "sqlite://me:secret@/absent.db"])
def test_who_reads_is_shown_no_password(url: str) -> None:
    with pytest.raises(StudyError) as error:
        open_stored(url)
    assert "secret" not in str(error.value)


def test_a_server_that_does_not_answer_is_told_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StudyError) as error:
        open_storage(f"postgresql+psycopg://me:secret@127.0.0.1:{port}/sweeps")
    said = str(error.value)
    assert said.startswith(f"storage=postgresql+psycopg://me:***@127.0.0.1:{port}/sweeps could not be opened")
    assert "(Connection refused)" in said
    assert "secret" not in said


class Twice(NamedTuple):
    """One storage, opened for the driver and opened again."""

    mine: BaseStorage
    again: BaseStorage


@pytest.fixture(params=["memory", "journal", "sqlite"], scope="module")
def twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    folder = tmp_path_factory.mktemp("twice")
    if request.param == "memory":
        memory = InMemoryStorage()
        return Twice(memory, memory)
    if request.param == "journal":
        file = str(folder / "study.log")
        return Twice(JournalStorage(JournalFileBackend(file)), JournalStorage(JournalFileBackend(file)))
    url = f"sqlite:///{folder / 'study.db'}"
    return Twice(open_storage(url), RDBStorage(url))


def new_trial(number: int) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING,
        params={"x": number / 100},
        distributions={"x": FloatDistribution(0, 1)},
        user_attrs={"recipe": {"x": number / 100}},
    )


def write(operation: str, amount: int, seen: PausedAsPruned, study: int, paused: set[int]) -> None:
    """What a driver may do; the amount says to which trial, and what."""
    if operation == "add":
        seen.create_new_trial(study, new_trial(amount))
        return
    number = amount % 6
    # There is no such trial yet, or it takes no more.
    with suppress(KeyError, UpdateFinishedTrialError):
        trial = seen.get_trial_id_from_study_id_trial_number(study, number)
        match operation:
            case "note":
                seen.set_trial_user_attr(trial, f"rung:{amount}", f"[{amount}]")
            case "report":
                seen.set_trial_intermediate_value(trial, amount, math.nan if amount == 7 else amount / 3)
            case "constrain":
                seen.set_trial_system_attr(trial, "constraints:diverged", float(amount % 2))
            case "end":
                state = ENDS[amount % 3]
                seen.set_trial_state_values(trial, state, None if state is TrialState.FAIL else [amount / 3])
            case "pause":
                paused.symmetric_difference_update({number})
            case "look":
                seen.get_trial(trial)


@pytest.mark.parametrize("seed", range(6))
def test_samplers_see_what_is_stored_whatever_was_read_before(twice: Twice, seed: int) -> None:
    paused: set[int] = set()
    seen = PausedAsPruned(twice.mine, paused.__contains__)
    study = seen.create_new_study([StudyDirection.MINIMIZE])
    chance = random.Random(seed)
    for _ in range(30):
        for _ in range(chance.randrange(4)):
            write(chance.choice(OPERATIONS), chance.randrange(12), seen, study, paused)
        fresh = PausedAsPruned(twice.again, paused.__contains__)
        # As text: NaN equals nothing, but is written alike.
        assert [*map(repr, seen.get_all_trials(study))] == [*map(repr, fresh.get_all_trials(study))]
        state = chance.choice(ENDS)
        some = [repr(trial) for trial in fresh.get_all_trials(study) if trial.state is state]
        assert [*map(repr, seen.get_all_trials(study, states=(state,)))] == some
        with seen.judging_divergence(), fresh.judging_divergence():
            assert [*map(repr, seen.get_all_trials(study))] == [*map(repr, fresh.get_all_trials(study))]
    assert any(trial.state.is_finished() for trial in seen.get_all_trials(study))


class LostAnswers(InMemoryStorage):
    """A storage that does what it is told and then fails."""

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        super().create_new_trial(*args, **kwargs)
        raise OSError

    def set_trial_user_attr(self, *args: Any, **kwargs: Any) -> None:
        super().set_trial_user_attr(*args, **kwargs)
        raise OSError


def test_a_write_that_failed_after_it_was_done_is_seen() -> None:
    storage = LostAnswers()
    seen = PausedAsPruned(storage, lambda number: False)
    study = seen.create_new_study([StudyDirection.MINIMIZE])
    assert seen.get_all_trials(study) == []
    with suppress(OSError):
        seen.create_new_trial(study, new_trial(0))
    (trial,) = seen.get_all_trials(study)
    with suppress(OSError):
        seen.set_trial_user_attr(trial._trial_id, "rung:32", "{}")
    assert seen.get_all_trials(study)[0].user_attrs["rung:32"] == "{}"


def test_what_was_not_written_since_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = InMemoryStorage()
    seen = PausedAsPruned(storage, lambda number: True)
    study = seen.create_new_study([StudyDirection.MINIMIZE])
    first, *_ = [seen.create_new_trial(study, new_trial(number)) for number in range(3)]
    seen.get_all_trials(study)
    read: list[int] = []
    get_trial = storage.get_trial
    monkeypatch.setattr(storage, "get_trial", lambda trial: [read.append(trial), get_trial(trial)][1])
    monkeypatch.setattr(storage, "get_all_trials", None)
    seen.set_trial_intermediate_value(first, 32, 1.0)
    for _ in range(2):
        assert seen.get_all_trials(study)[0].intermediate_values == {32: 1.0}
    assert read == [first]


def test_a_divergence_counts_as_the_worst_loss_only_where_it_is_judged() -> None:
    storage = InMemoryStorage()
    seen = PausedAsPruned(storage, lambda number: False)
    study = seen.create_new_study([StudyDirection.MINIMIZE])
    trials = [seen.create_new_trial(study, new_trial(number)) for number in range(4)]
    seen.set_trial_system_attr(trials[2], "constraints:diverged", 1.0)
    seen.set_trial_state_values(trials[2], TrialState.PRUNED)
    with seen.judging_divergence():
        assert seen.get_all_trials(study)[2].state is TrialState.PRUNED, "there is no loss to compare with"
    for trial, loss in zip(trials[:2], (1.5, 2.5), strict=True):
        seen.set_trial_state_values(trial, TrialState.COMPLETE, [loss])
    with seen.judging_divergence():
        shown = seen.get_all_trials(study)
    assert [trial.state.name for trial in shown] == ["COMPLETE", "COMPLETE", "COMPLETE", "RUNNING"]
    assert (shown[2].value, shown[2].constraints) == (2.5, {})
    assert repr(seen.get_all_trials(study)) == repr(storage.get_all_trials(study))
    assert storage.get_trial(trials[2]).constraints == {"diverged": 1.0}


def test_a_complete_trial_that_may_not_win_is_judged_as_well() -> None:
    storage = InMemoryStorage()
    seen = PausedAsPruned(storage, lambda number: False)
    study = seen.create_new_study([StudyDirection.MINIMIZE])
    trials = [seen.create_new_trial(study, new_trial(number)) for number in range(3)]
    for trial, loss, beyond in zip(trials, (0.5, 1.5, 2.5), (0.4, 0.0, None), strict=True):
        if beyond is not None:
            seen.set_trial_system_attr(trial, "constraints:guards", beyond)
        seen.set_trial_state_values(trial, TrialState.COMPLETE, [loss])
    with seen.judging_divergence():
        shown = seen.get_all_trials(study)
    assert [(trial.value, trial.constraints) for trial in shown] == [(2.5, {}), (1.5, {}), (2.5, {})]
    assert [trial.value for trial in seen.get_all_trials(study)] == [0.5, 1.5, 2.5]
