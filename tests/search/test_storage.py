"""Which storages can be opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from sqlalchemy import event

from sweep.errors import StudyError
from sweep.search.storage import open_storage, open_stored


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
