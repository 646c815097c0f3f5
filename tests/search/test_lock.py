"""One driver for each study, whatever the folder and the machine that it starts from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection

from sweep.errors import StudyError
from sweep.paths import packaged_root
from sweep.search.lock import only_writer, writer_of
from sweep.search.outage import Patient
from sweep.search.storage import open_storage
from tests.postgres import Postgres
from tests.search.test_outage import At, outline, undisturbed
from tests.studies import PLAN, open_study, run_study, synthetic_engine

DRIVER = """
import sys, time
from sweep.search.lock import only_writer
from sweep.search.storage import open_storage

with only_writer(open_storage(sys.argv[1]), "mine"):
    print("drives", flush=True)
    time.sleep(600)
"""


OTHER = """
import sys
from pathlib import Path

from tests.search.test_outage import driven
from tests.studies import open_study, run_study, synthetic_engine

with driven(sys.argv[1]) as storage:
    run_study(open_study(storage), synthetic_engine(Path(sys.argv[2])))
"""


def environment() -> dict[str, str]:
    """Of a driver in a process of its own."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(packaged_root()), *sys.path])}


@contextmanager
def another_driver(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that drives the study `mine`, from a folder of its own."""
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, url], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "drives\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def opened() -> Iterator[Callable[[str], BaseStorage]]:
    """`open_storage`, closed in the end."""
    with ExitStack() as stack:

        def opened(url: str) -> BaseStorage:
            storage = open_storage(url)
            assert isinstance(storage, _CachedStorage)
            stack.callback(storage._backend.engine.dispose)
            return storage

        yield opened


Opened = Callable[[str], BaseStorage]
ME = f"process {os.getpid()} on {os.uname().nodename}"


def test_a_second_driver_is_told_who_the_first_is(url: str, tmp_path: Path, opened: Opened) -> None:
    with another_driver(url, tmp_path / "theirs") as first:
        mine = opened(url)
        who = f"process {first.pid} on {os.uname().nodename}"
        with (
            pytest.raises(StudyError, match=f"^The study 'mine' is in use by {who}. Wait for it, stop it"),
            only_writer(mine, "mine"),
        ):
            raise AssertionError("goes no further")
        assert writer_of(mine, "mine") == who
        with only_writer(mine, "another"):
            assert writer_of(opened(url), "another") == ME


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_driver_gives_its_study_up(
    url: str, tmp_path: Path, opened: Opened, how: signal.Signals
) -> None:
    with another_driver(url, tmp_path / "theirs") as first:
        first.send_signal(how)
        first.wait()
        mine = opened(url)
        while writer_of(mine, "mine") is not None:
            # A server notices it by itself.
            time.sleep(0.01)
        with only_writer(mine, "mine"):
            assert writer_of(opened(url), "mine") == ME
        assert writer_of(mine, "mine") is None


def test_a_study_in_memory_needs_no_lock() -> None:
    storage = open_storage("memory")
    with only_writer(storage, "mine"), only_writer(storage, "mine"):
        assert writer_of(storage, "mine") is None


def test_a_file_is_the_same_from_every_folder(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    linked = opened(f"sqlite:///{tmp_path / 'there' / 'sweep.db'}")
    refused = pytest.raises(StudyError, match=f"The study 'mine' is in use by {ME}")
    with only_writer(opened("sqlite:///sweep.db"), "mine"), refused, only_writer(linked, "mine"):
        raise AssertionError("goes no further")


def test_a_driver_that_lost_its_study_in_an_outage_stops(
    postgres: Postgres, tmp_path: Path, opened: Opened
) -> None:
    """Another has taken it when the database is back: from then on the first writes nothing."""
    url = postgres.create("taken")
    mine, other = opened(url), opened(url)
    theirs = only_writer(other, PLAN.name)

    def take() -> None:
        postgres.restart()
        theirs.__enter__()

    with only_writer(mine, PLAN.name):
        study = open_study(Patient(mine, minutes=10))
        with pytest.raises(StudyError, match=f"^The study '{PLAN.name}' is in use by {ME}"):
            run_study(study, synthetic_engine(tmp_path), At(7, take))
    run_study(open_study(other), synthetic_engine(tmp_path))
    assert outline(other) == undisturbed(tmp_path)
    theirs.__exit__(None, None, None)


@pytest.mark.parametrize("reports", [2, 7, 14])
def test_a_driver_whose_study_another_drove_in_an_outage_stops(
    postgres: Postgres, tmp_path: Path, opened: Opened, reports: int
) -> None:
    """It came, went through with the search and left: nothing is locked, but what the first knows is old."""
    url = postgres.create(f"driven_{reports}")
    theirs: list[tuple[list[str], dict[str, Any]]] = []

    def kept(storage: BaseStorage) -> tuple[list[str], dict[str, Any]]:
        study = storage.get_study_id_from_name(PLAN.name)
        return outline(storage), storage.get_study_user_attrs(study)

    def drive() -> None:
        postgres.restart()
        command = [sys.executable, "-c", OTHER, url, str(tmp_path)]
        subprocess.run(command, env=environment(), check=True)
        theirs.append(kept(opened(url)))

    mine = opened(url)
    with only_writer(mine, PLAN.name):
        study = open_study(Patient(mine, minutes=10))
        with pytest.raises(StudyError) as refusal:
            run_study(study, synthetic_engine(tmp_path), At(reports, drive))
        with pytest.raises(StudyError, match="was driven by process"):
            study.note("late", 1)
    said = str(refusal.value)
    assert said.startswith(f"The study '{PLAN.name}' was driven by process ")
    assert ME not in said
    assert "Start the same command again" in said
    assert kept(opened(url)) == theirs[0]
    assert theirs[0][0] == undisturbed(tmp_path)
    with only_writer(again := opened(url), PLAN.name):
        open_study(again)


def test_a_session_that_the_server_ended_is_taken_up_again(
    postgres: Postgres, tmp_path: Path, opened: Opened
) -> None:
    url = postgres.create("ended")
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'process%'"
    storage = opened(url)
    with only_writer(storage, PLAN.name):
        study = open_study(Patient(storage, minutes=10))
        twice = [At(reports, lambda: postgres.query(ending)) for reports in (7, 12)]
        run_study(study, synthetic_engine(tmp_path), *twice)
        assert writer_of(opened(url), PLAN.name) == ME
        assert outline(storage) == undisturbed(tmp_path)


def test_sweeps_that_start_at_once_make_the_tables_once(postgres: Postgres, opened: Opened) -> None:
    urls = [postgres.create("empty")] * 4
    with ThreadPoolExecutor() as threads:
        for name, storage in enumerate(threads.map(opened, urls)):
            storage.create_new_study([StudyDirection.MINIMIZE], str(name))
    assert len(opened(urls[0]).get_all_studies()) == 4


def test_studies_of_one_name_in_two_schemas_are_two(postgres: Postgres, opened: Opened) -> None:
    url = postgres.create("shared")
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE SCHEMA one")
        connection.execute("CREATE SCHEMA two")
    one, two = (opened(f"{url}?options=-csearch_path%3D{schema}") for schema in ("one", "two"))
    with only_writer(one, "mine"), only_writer(two, "mine"):
        assert writer_of(opened(f"{url}?options=-csearch_path%3Dtwo"), "mine") == ME
