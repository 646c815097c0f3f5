"""Which storages can be opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

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
