"""Which storages can be opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from sqlalchemy import event

from sweep.errors import StudyError
from sweep.search.storage import open_storage


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
