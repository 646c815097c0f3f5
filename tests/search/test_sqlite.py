"""A study in a file of SQLite, beside others who read and write it, and on a disk that is full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sweep.errors import StudyError
from sweep.search.storage import open_storage
from tests.mounts import mounted, resize
from tests.search.test_outage import AWAY, BACK, At, driven, outline, told, undisturbed, when_away
from tests.studies import open_study, run_study, synthetic_engine


def other(file: Path) -> sqlite3.Connection:
    """Somebody else's connection, who begins and ends transactions by hand."""
    return sqlite3.connect(file, isolation_level=None)


def test_who_reads_for_as_long_as_the_search_takes_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And sees the study as it was when the reading began."""
    file = tmp_path / "sweep.db"
    with closing(other(file)) as reader, driven(f"sqlite:///{file}?timeout=0.05") as storage:

        def read() -> list[tuple[int]]:
            return reader.execute("SELECT trial_id FROM trials").fetchall()

        seen: list[list[tuple[int]]] = []
        run_study(
            open_study(storage),
            synthetic_engine(tmp_path),
            At(3, lambda: (reader.execute("BEGIN"), seen.append(read()))),
        )
        assert read() == seen[0]
        assert len(seen[0]) < 12
        assert outline(storage) == undisturbed(tmp_path)
    assert told(caplog) == []


def test_who_writes_for_longer_than_sqlite_waits_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "sweep.db"
    with closing(other(file)) as writer, driven(f"sqlite:///{file}?timeout=0.05") as storage:
        with when_away(lambda: writer.execute("COMMIT")):
            run_study(
                open_study(storage),
                synthetic_engine(tmp_path),
                At(7, lambda: writer.execute("BEGIN IMMEDIATE")),
            )
        assert outline(storage) == undisturbed(tmp_path)
    away, back = told(caplog)
    assert away.startswith(f"{AWAY}database is locked.")
    assert back == BACK


def test_two_studies_are_searched_at_once_in_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweep.db'}"
    open_storage(url)

    def searched(name: str) -> list[str]:
        with driven(url, study=name) as storage:
            run_study(open_study(storage, name=name), synthetic_engine(tmp_path / name))
            return outline(storage, name)

    with ThreadPoolExecutor() as threads:
        found = [*threads.map(searched, ["one", "two"])]
    assert found == [undisturbed(tmp_path)] * 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    with mounted(tmp_path / "disk", 2**19) as folder:
        yield folder


def test_a_full_disk_stops_the_search_and_a_larger_one_goes_on_with_it(
    small_disk: Path, tmp_path: Path
) -> None:
    """Nothing is corrupt, no trial is lost, none stored twice."""
    url, file = f"sqlite:///{small_disk / 'sweep.db'}", small_disk / "sweep.db"
    full = pytest.raises(StudyError, match=r"could not be written: .*\. Free space, or make its file")
    with driven(url) as storage, full:
        run_study(open_study(storage, trials=200), synthetic_engine(tmp_path))
    with closing(other(file)) as checked:
        assert checked.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (kept,) = checked.execute("SELECT count(*) FROM trials").fetchone()
    assert kept > 0
    resize(small_disk, 2**26)
    with driven(url) as storage:
        run_study(open_study(storage, trials=kept + 8), synthetic_engine(tmp_path))
        assert outline(storage) == undisturbed(tmp_path, trials=kept + 8)
