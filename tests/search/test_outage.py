"""The study's database goes away, loses answers and comes back: nothing is lost, nothing stored twice."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from sweep.commands import Interrupted, interruptible
from sweep.errors import OutageError
from sweep.search import outage
from sweep.search.lock import only_writer
from sweep.search.loop import search
from sweep.search.outage import Patient
from sweep.search.scheduler import Full
from sweep.search.storage import open_storage
from sweep.types import Progress, Report
from tests.backends.engines import Lasting, noted
from tests.backends.test_pool import pool
from tests.postgres import Postgres
from tests.proxy import LOSSES, Loss, Proxy
from tests.studies import PLAN, open_study, run_study, synthetic_engine, synthetic_inputs

AWAY = "The study's database can't be reached: "
BACK = "The study's database answers again; nothing is lost."


@contextmanager
def driven(url: str, minutes: float = 10, study: str = PLAN.name) -> Iterator[Patient]:
    """The storage as a sweep opens it."""
    storage = open_storage(url)
    with only_writer(storage, study):
        yield Patient(storage, minutes=minutes)


def outline(storage: BaseStorage, name: str = PLAN.name) -> list[str]:
    """What is stored of each trial, but for times and paths; as text, for NaN equals nothing."""
    study = storage.get_study_id_from_name(name)
    return [
        repr(
            [
                t.number,
                t.state,
                t.values,
                t.params,
                t.intermediate_values,
                sorted(t.user_attrs),
                t.system_attrs,
            ]
        )
        for t in storage.get_all_trials(study)
    ]


def undisturbed(folder: Path, **plan: int) -> list[str]:
    memory = InMemoryStorage()
    run_study(open_study(memory, **plan), synthetic_engine(folder / "undisturbed"))
    return outline(memory)


class At:
    """Does something once the driver heard so many reports."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left = number
        self.act = act

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            self.left -= 1
            if self.left == 0:
                self.act()


class WhenAway(logging.Handler):
    """Does something when the driver says that its database is away."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(AWAY):
            self.act()


@contextmanager
def when_away(act: Callable[[], object]) -> Iterator[None]:
    logger, handler = logging.getLogger("sweep.search"), WhenAway(act)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sweep.search"]


@pytest.mark.parametrize("immediate", [False, True])
def test_a_database_that_is_away_is_waited_for(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture, immediate: bool
) -> None:
    """The search goes on where it stood, one warning says so when it begins, one when it ends."""
    with driven(postgres.create(f"away_{immediate}")) as storage:
        study = open_study(storage, trials=20)
        with when_away(postgres.start):
            run_study(study, synthetic_engine(tmp_path), At(15, lambda: postgres.stop(immediate)))
        assert outline(storage) == undisturbed(tmp_path, trials=20)
    away, back = told(caplog)
    assert away.startswith(AWAY)
    assert "refused" in away
    assert "10 min at most (storage_patience)" in away
    assert back == BACK


def test_a_restart_between_two_writes_goes_unnoticed(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with driven(postgres.create("restarted")) as storage:
        run_study(open_study(storage), synthetic_engine(tmp_path), At(9, postgres.restart))
        assert outline(storage) == undisturbed(tmp_path)
    assert told(caplog) == []


def test_a_commit_whose_answer_is_lost_is_done_once(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four, of whatever kind: that of a trial's creation, its entries, its reports, its end."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE_SECONDS", 0.001)
    chance, opened = random.Random(0), False

    def lost() -> Loss | None:
        return chance.choice(LOSSES) if opened and chance.random() < 0.25 else None

    url = postgres.create("lossy")
    with closing(Proxy(postgres.port, lost)) as proxy:
        with driven(url.replace(f":{postgres.port}/", f":{proxy.port}/")) as storage:
            opened = True
            run_study(open_study(storage), synthetic_engine(tmp_path))
            opened = False
            assert outline(storage) == undisturbed(tmp_path)
        assert min(Counter(proxy.lost)[loss] for loss in LOSSES) > 10


def test_who_waits_no_longer_than_that_says_how_to_go_on(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.create("impatient")
    with driven(url, minutes=0) as storage:
        study = open_study(storage)
        with pytest.raises(OutageError) as error:
            run_study(study, synthetic_engine(tmp_path), At(9, postgres.stop))
    postgres.start()
    said = str(error.value)
    assert "was waited for 0 min (storage_patience): " in said
    assert "start the same command again" in said
    with driven(url) as storage:
        run_study(open_study(storage), synthetic_engine(tmp_path))
        assert outline(storage) == undisturbed(tmp_path)


def test_an_interruption_ends_the_wait_at_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create("interrupted")

    def drive(storage: Patient) -> None:
        study = open_study(storage)

        def stop() -> None:
            study.interrupt()
            storage.interrupt()

        with interruptible(stop):
            run_study(study, synthetic_engine(tmp_path), At(9, postgres.stop))

    interrupted = when_away(lambda: signal.raise_signal(signal.SIGINT))
    with driven(url) as storage, interrupted, pytest.raises(Interrupted) as stopped:
        drive(storage)
    assert stopped.value.exit_code == 130
    postgres.start()
    with driven(url) as storage:
        run_study(open_study(storage), synthetic_engine(tmp_path))
        assert outline(storage) == undisturbed(tmp_path)


def test_workers_train_on_while_the_driver_waits(postgres: Postgres, tmp_path: Path) -> None:
    """Trial 1 comes to its end after the outage began; the driver hears of it when it is over."""

    def train() -> None:
        (tmp_path / "go").touch()
        while not any("1@288 ends" in log.read_text() for log in (tmp_path / "workers").glob("*.log")):
            time.sleep(0.01)
        postgres.start()

    memory = InMemoryStorage()
    alone = open_study(memory, scheduler=Full(), trials=16)
    run_study(alone, synthetic_engine(tmp_path / "undisturbed"))
    engine = partial(Lasting, inputs=synthetic_inputs(tmp_path))
    with (
        driven(postgres.create("pooled")) as storage,
        closing(pool(engine, tmp_path)) as backend,
        when_away(lambda: threading.Thread(target=train).start()),
    ):
        study = open_study(storage, scheduler=Full(), trials=16)
        search(study, backend, [At(6, lambda: postgres.stop(immediate=True))])
        assert sorted(outline(storage)) == sorted(outline(memory))
    assert len(noted(tmp_path, "engines")) == 2
