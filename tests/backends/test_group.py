"""A worker of several processes: they take the same steps, and end together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep import redaction
from sweep.backends import devices
from sweep.backends.pool import Pool
from sweep.errors import ModelError
from sweep.search.loop import Jobs, run_jobs
from sweep.types import Engine, Progress, Report
from tests.backends.drivers import children_of, driver
from tests.backends.engines import AbsentRank, Confiding, CutOff, DeadlyRank, FailingRank, Ranked, noted
from tests.backends.test_deaths import assert_as_undisturbed, searched, undisturbed
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.studies import synthetic_inputs


def group(make_engine: Callable[[], Engine], folder: Path) -> Pool:
    """One worker of two processes."""
    return pool(make_engine, folder, workers=1, devices_per_worker=2)


def ranks(folder: Path) -> dict[int, list[int]]:
    """The processes that had each rank."""
    found: dict[int, list[int]] = {}
    for process, rank, *_ in (line.split() for line in noted(folder, "ranks")):
        found.setdefault(int(rank), []).append(int(process))
    return found


def gone(folder: Path) -> bool:
    """Whether none of them is left, waited for."""
    started = [process for of_rank in ranks(folder).values() for process in of_rank]
    left = [psutil.Process(process) for process in started if psutil.pid_exists(process)]
    return psutil.wait_procs(left, timeout=60)[1] == []


def test_all_processes_take_every_job_and_one_report_of_each_is_heard(tmp_path: Path) -> None:
    study, told = searched(group(partial(Ranked, inputs=synthetic_inputs(tmp_path)), tmp_path))
    assert_as_undisturbed(study, told, tmp_path)
    begun = Counter(line.split()[0] for line in noted(tmp_path, "begun"))
    assert set(begun.values()) == {2}
    assert {rank: len(processes) for rank, processes in ranks(tmp_path).items()} == {0: 1, 1: 1}
    assert gone(tmp_path)


@pytest.mark.slow
def test_no_process_tells_what_the_driver_knows_to_be_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    redaction.remember({"api_key": "planted-word"})
    engine = partial(Confiding, inputs=synthetic_inputs(tmp_path), word="planted-word")
    told: list[str | None] = []
    with closing(pool(engine, tmp_path, workers=1, devices_per_worker=2, deaths=1)) as backend:
        for event in backend.run(Jobs([job(trial="a"), job(trial="last")])):
            assert isinstance(event, Report)
            told.append(event.error)
    log = (tmp_path / "workers" / "0.log").read_text()
    for rank in (0, 1):
        assert f"rank {rank} was given ***" in log
    assert "LookupError: no access with ***" in log
    assert told[0] == "asked with ***"
    assert "LookupError: no access with ***" in str(told[1])
    warned = "\n".join(record.getMessage() for record in caplog.records)
    assert "worker 0: rank 0 was given ***" in warned
    assert "planted-word" not in f"{log}{told}{warned}"


def test_each_process_sees_its_own_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: 4)
    engine = partial(Ranked, inputs=synthetic_inputs(tmp_path))
    with closing(pool(engine, tmp_path, workers=2, devices_per_worker=2)) as backend:
        run_jobs([job(trial="a"), job(trial="b")], backend)
    assert sorted(line.split()[1:3] for line in noted(tmp_path, "ranks")) == [
        ["0", "0"],
        ["0", "2"],
        ["1", "1"],
        ["1", "3"],
    ]


def test_all_stop_at_the_same_step(tmp_path: Path) -> None:
    source = Jobs([job(0, 72_000, trial="a", horizon=72_000)])
    with closing(group(partial(Ranked, inputs=synthetic_inputs(tmp_path)), tmp_path)) as backend:
        for event in backend.run(source):
            if isinstance(event, Progress):
                source.interrupt()
    assert gone(tmp_path)
    first, second = noted(tmp_path, "ended")
    assert first == second
    assert "stopped" in first


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_death_of_one_process_is_that_of_the_worker(
    rank: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = partial(DeadlyRank, inputs=synthetic_inputs(tmp_path), rank=rank)
    study, told = searched(group(engine, tmp_path))
    assert_as_undisturbed(study, told, tmp_path)
    assert {rank: len(processes) for rank, processes in ranks(tmp_path).items()} == {0: 2, 1: 2}
    assert gone(tmp_path)
    assert "worker 0 was killed (SIGKILL)" in caplog.text
    assert ("one of a group of 2, was killed (SIGKILL)" in caplog.text) == (rank == 1)


@pytest.mark.parametrize(
    "failing", [pytest.param({0}, marks=pytest.mark.slow), {1}, pytest.param({0, 1}, marks=pytest.mark.slow)]
)
def test_what_one_process_alone_reports_is_the_trials_end_and_the_groups(
    failing: set[int], tmp_path: Path
) -> None:
    engine = partial(FailingRank, inputs=synthetic_inputs(tmp_path), failing=frozenset(failing))
    study, told = searched(group(engine, tmp_path))
    failed = study.standing("5")
    assert failed.state == "infeasible"
    assert str(failed.reason) in {f"no room on {rank}" for rank in failing}
    expected = undisturbed(tmp_path).standings
    assert [(s.trial, s.values) for s in study.standings if s is not failed] == [
        (s.trial, s.values) for s in expected if s.trial.id != "5"
    ]
    assert Counter(report.trial for report in told.reports) == {s.trial.id: 1 for s in expected}
    assert {rank: len(processes) for rank, processes in ranks(tmp_path).items()} == {0: 2, 1: 2}
    assert gone(tmp_path)


@pytest.mark.slow
def test_an_error_that_follows_from_anothers_death_is_not_the_trials(tmp_path: Path) -> None:
    engine = partial(CutOff, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path, workers=1, devices_per_worker=3))
    assert len(noted(tmp_path, "cut off")) == len(noted(tmp_path, "deaths")) == 1
    assert_as_undisturbed(study, told, tmp_path)


@pytest.mark.slow
def test_what_every_worker_would_raise_is_raised_whichever_process_finds_it(tmp_path: Path) -> None:
    backend = group(partial(AbsentRank, inputs=synthetic_inputs(tmp_path)), tmp_path)
    with pytest.raises(ModelError, match=r"^model\.path=/nowhere: no such folder\.$"), closing(backend):
        run_jobs([job()], backend)
    assert gone(tmp_path)


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_not_even_a_stopped_one(tmp_path: Path) -> None:
    with driver(pool, tmp_path, devices_per_worker=2) as process:
        workers = children_of(process, 4)
        followers = [one for one in workers if one.ppid() != process.pid]
        assert len(followers) == 2
        followers[0].suspend()
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_a_killed_leader_leaves_no_process_not_even_a_stopped_one(tmp_path: Path) -> None:
    with driver(pool, tmp_path, devices_per_worker=2) as process:
        workers = children_of(process, 4)
        leader = next(one for one in workers if one.ppid() == process.pid)
        (follower,) = leader.children()
        follower.suspend()
        leader.kill()
        _, alive = psutil.wait_procs([leader, follower], timeout=60)
    assert alive == []
