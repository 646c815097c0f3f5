"""Who writes to a study's storage changes results, and nothing else on the driver's machine."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from sweep.search.storage import open_storage
from tests.studies import open_study, run_study, synthetic_engine


def test_a_stored_path_deletes_nothing_but_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    address = f"sqlite:///{tmp_path}/sweep.db"
    run_study(open_study(open_storage(address), trials=4), synthetic_engine(tmp_path))
    with closing(sqlite3.connect(tmp_path / "sweep.db")) as database, database:
        rows = database.execute("SELECT trial_user_attribute_id, key, value_json FROM trial_user_attributes")
        rungs = [(at, json.loads(json.loads(kept))) for at, key, kept in rows if key.startswith("rung:")]
        assert rungs
        for at, report in rungs:
            theirs = json.dumps(json.dumps({**report, "checkpoint": str(tmp_path / "mine")}))
            change = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?"
            database.execute(change, (theirs, at))
    open_study(open_storage(address), trials=4)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_states_that_are_needed_no_more_are_deleted_all_the_same(tmp_path: Path) -> None:
    study = run_study(open_study(), synthetic_engine(tmp_path))
    kept = {one.reports[-1].checkpoint for one in study.standings if one.state == "complete"}
    assert {str(path.parent) for path in tmp_path.rglob("checksums.json")} == kept
