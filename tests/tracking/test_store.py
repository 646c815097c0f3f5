from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.db import utils

from sweep.errors import ConfigError
from sweep.redaction import redact
from sweep.tracking.store import connect
from tests.tracking.sweeps import Shop, Sweep


def test_opening_a_new_store_prints_nothing(tmp_path: Path) -> None:
    code = (
        "from sweep.tracking.store import connect; connect('sqlite:///made/here.db').create_experiment('a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "made/here.db").is_file()


def tables(place: Path) -> list[list[str]]:
    """All that defines a database; the migrations put constraints of a table in any order."""
    with closing(sqlite3.connect(place)) as connection:
        version = connection.execute("SELECT * FROM alembic_version").fetchone()
        made = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return sorted(sorted(re.findall(r"\w+", str(one))) for one in (*made, version))


def test_a_new_store_is_made_beside_its_place_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def killed(engine: Any) -> None:
        begun.append(engine)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, "_upgrade_db", killed)
        with pytest.raises(KeyboardInterrupt):
            connect(f"sqlite:///{tmp_path}/a.db")
    assert begun
    assert list(tmp_path.iterdir()) == [], "nothing, rather than half of it"
    connect(f"sqlite:///{tmp_path}/a.db").create_experiment("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_who_makes_a_store_at_the_same_time_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/a.db"
    upgrade, made = utils._upgrade_db, []

    def outrun(engine: Any) -> None:
        """Another process is through first, and has an experiment."""
        upgrade(engine)
        if not made:
            made.append(engine)
            connect(uri).create_experiment("theirs")

    monkeypatch.setattr(utils, "_upgrade_db", outrun)
    assert connect(uri).get_experiment_by_name("theirs") is not None


@pytest.mark.slow
def test_a_store_is_the_one_that_mlflow_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*given: Any) -> None:
        raise PermissionError

    connect(f"sqlite:///{tmp_path}/ours.db")
    monkeypatch.setattr(os, "link", no_links)
    connect(f"sqlite:///{tmp_path}/theirs.db").create_experiment("mine")
    assert tables(tmp_path / "ours.db") == tables(tmp_path / "theirs.db")


@pytest.mark.parametrize(
    "uri",
    ["nonsense://x", "file:///tmp/mlruns", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////proc/no/x.db"],
)
def test_an_unusable_address_is_an_error_without_its_password(uri: str, tmp_path: Path) -> None:
    sweep = Sweep()
    with pytest.raises(ConfigError, match=r"tracking\.uri=.* could not be opened") as caught:
        sweep.tracker(Shop(uri, tmp_path), "x")
    assert "secret" not in str(caught.value)


def test_user_and_password_of_an_address_are_hidden() -> None:
    assert redact("http://me:pass@host:5000/a b@c") == "http://***@host:5000/a b@c"
