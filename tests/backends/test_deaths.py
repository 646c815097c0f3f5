"""Workers are killed, stopped and fail to start: no trial is lost, none counted twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep.backends import child
from sweep.backends.pool import Pool
from sweep.engines import checkpoint
from sweep.errors import ModelError, StudyError, TrainingError
from sweep.search.loop import Jobs, run_jobs, search
from sweep.search.scheduler import Full
from sweep.search.study import Study
from sweep.types import Engine, Observer, Progress, Report
from tests.backends.engines import (
    Broken,
    Deadly,
    Fading,
    Halting,
    Hanging,
    Noted,
    Slow,
    Stillborn,
    Stumbling,
    Together,
    Unable,
    Vanishing,
    noted,
    seconds_to_begin_again,
)
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.studies import open_study, run_study, synthetic_engine, synthetic_inputs


class Told:
    """Every report of a search."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            self.reports.append(event)


def workers() -> list[psutil.Process]:
    """Of this process, alive."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "sweep.backends.worker" in child.cmdline()
    ]


def searched(backend: Pool, *observers: Observer, trials: int = 12) -> tuple[Study, Told]:
    """A random search without pruning, through that backend."""
    study, told = open_study(scheduler=Full(), trials=trials), Told()
    with closing(backend):
        search(study, backend, [told, *observers])
    return study, told


def undisturbed(folder: Path, *, trials: int = 12) -> Study:
    return run_study(open_study(scheduler=Full(), trials=trials), synthetic_engine(folder / "undisturbed"))


def counted(study: Study, told: Told, folder: Path) -> tuple[int, int, int]:
    """Trials, those that are not as in the undisturbed search, and reports beyond one for each."""
    expected = {s.trial: (s.state, s.values) for s in undisturbed(folder, trials=study.plan.trials).standings}
    whole = sum(expected.get(s.trial) == (s.state, s.values) for s in study.standings)
    reported = Counter(report.trial for report in told.reports)
    return len(expected), len(expected) - whole, sum(reported.values()) - len(reported)


def assert_as_undisturbed(study: Study, told: Told, folder: Path) -> None:
    """The same trials with the same losses, each reported once."""
    expected = undisturbed(folder, trials=study.plan.trials)
    assert [(s.trial, s.state, s.values) for s in study.standings] == [
        (s.trial, s.state, s.values) for s in expected.standings
    ]
    assert Counter(report.trial for report in told.reports) == {s.trial.id: 1 for s in study.standings}


@pytest.mark.parametrize("when", ["begun", "step", "saved"])
def test_a_dead_worker_loses_no_trial(when: str, tmp_path: Path, tell_fault: Callable[..., None]) -> None:
    engine = partial(Deadly, inputs=synthetic_inputs(tmp_path), trial="5", when=when, times=1)
    study, told = searched(pool(engine, tmp_path))
    seconds = seconds_to_begin_again(tmp_path, "5")
    tell_fault(injected=1, trials=counted(study, told, tmp_path), seconds=seconds)
    assert_as_undisturbed(study, told, tmp_path)
    begun = [line.split() for line in noted(tmp_path, "begun") if line.startswith("5@")]
    assert len({process for _, process in begun}) == 2, "begun again by another worker"
    # Two, if the other worker was through with the rest before the first one was missed.
    assert len(noted(tmp_path, "engines")) in (2, 3)


def test_a_lost_job_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    engine = partial(Deadly, inputs=synthetic_inputs(tmp_path), trial="rungs", when="begun", times=1)
    (first,) = run_study_job(synthetic_engine(tmp_path), 0, 24, None)
    with closing(pool(engine, tmp_path)) as backend:
        rest = job(24, 72, checkpoint=first.checkpoint, trial="rungs")
        (report,) = run_jobs([rest], backend).values()
    assert (report.state, report.attempt, report.examples_seen) == ("reached", 3, 72)
    assert report.tokens == (72 - 24) * 64
    assert checkpoint.verified(Path(report.checkpoint or ""))


def run_study_job(engine: Engine, start: int, stop: int, state: str | None) -> list[Report]:
    events = engine.run(Jobs([job(start, stop, checkpoint=state, trial="rungs")]))
    return [event for event in events if isinstance(event, Report)]


def test_workers_killed_again_and_again_lose_no_trial(
    tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    class Killer:
        """Kills a worker eight times, each after so many events more."""

        drawn, killed, rest = random.Random(0), 0, 5

        def log(self, event: Progress | Report) -> None:
            self.rest -= 1
            if self.rest <= 0 and self.killed < 8 and (alive := workers()):
                self.drawn.choice(alive).kill()
                self.killed += 1
                self.rest = self.drawn.randrange(1, 60)

    killer = Killer()
    engine = partial(Noted, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path, deaths=1000), killer, trials=40)
    assert killer.killed == 8
    tell_fault(injected=8, trials=counted(study, told, tmp_path))
    assert_as_undisturbed(study, told, tmp_path)


def test_a_trial_that_kills_each_worker_ends_alone_and_failed(
    tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    engine = partial(Together, inputs=synthetic_inputs(tmp_path), trial="4")
    study, told = searched(pool(engine, tmp_path))
    held = [line.split() for line in noted(tmp_path, "deaths")]
    assert len(held) == 3
    assert len(held[0]) > 1, "it had neighbours at first"
    assert held[-1] == ["4"], "and none in the end"
    failed = study.standing("4")
    assert failed.state == "failed"
    reason = str(failed.reason)
    assert reason.startswith(
        "3 workers ended while they trained it, the last with nothing else to do: worker "
    )
    assert "was killed (SIGKILL), which is often the system's doing where memory runs out" in reason
    assert str(tmp_path / "workers") in reason
    trials, lost, doubled = counted(study, told, tmp_path)
    # But itself.
    tell_fault(injected=3, trials=(trials, lost - 1, doubled))
    expected = undisturbed(tmp_path).standings
    assert [(s.trial, s.values) for s in study.standings if s is not failed] == [
        (s.trial, s.values) for s in expected if s.trial.id != "4"
    ]
    assert Counter(report.trial for report in told.reports) == {s.trial.id: 1 for s in expected}


def test_what_must_run_alone_does_so_before_the_end(tmp_path: Path) -> None:
    """The worker that is left has room for three, and there is always more for it to do."""
    engine = partial(Vanishing, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path, deaths=1), trials=40)
    assert_as_undisturbed(study, told, tmp_path)
    (killed,) = noted(tmp_path, "deaths")
    begun = [line.split() for line in noted(tmp_path, "beside")]
    for trial in killed.split():
        _, again = (place for place, (name, _) in enumerate(begun) if name == trial)
        assert begun[again][1] == "0", "none beside it when it begins"
        assert begun[again + 1][1] == "0", "and none while it lasts"
        assert len(begun) - again > 12, "long before the end"


def test_the_recipe_itself_that_kills_each_worker_ends_the_search(tmp_path: Path) -> None:
    engine = partial(Deadly, inputs=synthetic_inputs(tmp_path), trial="0", when="step", times=99)
    with pytest.raises(StudyError, match=r"Trial 0, .*, failed.*was killed \(SIGKILL\)"):
        searched(pool(engine, tmp_path))
    assert workers() == []


def test_a_stopped_worker_is_replaced_and_never_heard_again(
    tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    class Stopper:
        """Stops the worker of the first trial at its first step."""

        stopped: psutil.Process | None = None
        trial, at = "", 0.0

        def log(self, event: Progress | Report) -> None:
            if self.stopped is None:
                mine = {
                    process for name, process in map(str.split, noted(tmp_path, "begun")) if name == event.job
                }
                (self.stopped,) = [one for one in workers() if str(one.pid) in mine]
                self.stopped.suspend()
                self.trial, self.at = event.trial, time.monotonic()

    stopper = Stopper()
    engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path, silent_seconds=1), stopper)
    seconds = seconds_to_begin_again(tmp_path, stopper.trial, stopper.at)
    tell_fault(injected=1, trials=counted(study, told, tmp_path), seconds=seconds)
    assert_as_undisturbed(study, told, tmp_path)
    assert stopper.stopped is not None
    with pytest.raises(psutil.NoSuchProcess):
        stopper.stopped.resume()


def test_an_engine_that_raises_what_no_trial_caused_is_a_dead_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = partial(Stumbling, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path))
    assert_as_undisturbed(study, told, tmp_path)
    (record,) = caplog.records
    assert "raised what no trial caused by itself, RuntimeError: the device was lost; " in record.message
    assert "It held trial 1." in record.message


def test_a_worker_that_stops_in_the_middle_of_a_message_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_MESSAGE_SECONDS", 1)
    engine = partial(Halting, inputs=synthetic_inputs(tmp_path))
    study, told = searched(pool(engine, tmp_path))
    assert_as_undisturbed(study, told, tmp_path)
    (record,) = caplog.records
    assert "came to a stop in the middle of a message" in record.message


def test_what_is_idle_has_no_deadline(tmp_path: Path) -> None:
    engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
    with closing(pool(engine, tmp_path, silent_seconds=0.5)) as backend:
        # The second worker has nothing to do while the first takes two seconds or more.
        run_jobs([job(0, 8, trial="a"), job(0, 8_000, trial="b", horizon=8_000)], backend)
    assert len(noted(tmp_path, "engines")) == 2


class TestStart:
    def test_an_import_that_fails_is_told_with_its_trace(self, tmp_path: Path) -> None:
        engine = partial(Broken, inputs=synthetic_inputs(tmp_path))
        with pytest.raises(TrainingError) as error, closing(pool(engine, tmp_path)) as backend:
            run_jobs([job()], backend)
        assert "worker 0 could not start" in str(error.value)
        assert str(error.value).endswith("ImportError: libcuda is missing")
        assert f"{tmp_path}/workers/0.log" in str(error.value)
        assert workers() == []

    def test_one_that_can_not_start_beside_others_is_done_without(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = ModelError("model.path=/nowhere: no such folder.")
        engine = partial(Unable, inputs=synthetic_inputs(tmp_path), worker="1", error=error)
        backend = pool(engine, tmp_path)
        study, told = searched(backend)
        assert_as_undisturbed(study, told, tmp_path)
        (record,) = caplog.records
        assert "Worker 1 could not start on this machine; no other is started in its place" in record.message
        assert record.message.endswith("model.path=/nowhere: no such folder.")
        assert noted(tmp_path, "unable") == ["1"], "and not tried again"
        assert len(backend.devices) == 1

    def test_where_it_was_the_last_its_error_ends_the_run(self, tmp_path: Path) -> None:
        engine = partial(Fading, inputs=synthetic_inputs(tmp_path), trial="3", when="step", times=1)
        with pytest.raises(TrainingError, match=r"worker 0 could not start(?s:.*)libcuda is missing"):
            searched(pool(engine, tmp_path, workers=1))
        assert workers() == []

    def test_a_worker_killed_at_each_start_ends_the_run(self, tmp_path: Path) -> None:
        engine = partial(Stillborn, inputs=synthetic_inputs(tmp_path))
        with pytest.raises(TrainingError, match="start 3 in a row") as error:
            run_jobs([job()], pool(engine, tmp_path))
        assert "SIGKILL" in str(error.value)
        assert len(noted(tmp_path, "engines")) == 3
        assert workers() == []

    def test_a_worker_that_never_is_ready_is_given_up(self, tmp_path: Path) -> None:
        engine = partial(Hanging, inputs=synthetic_inputs(tmp_path))
        with pytest.raises(TrainingError, match=r"had not loaded after 0\.5 s \(backend\.start_seconds\)"):
            run_jobs([job()], pool(engine, tmp_path, start_seconds=0.5))
        assert workers() == []

    def test_interrupted_while_it_loads_nothing_is_waited_for(self, tmp_path: Path) -> None:
        """Two hours to load, and none of them passes."""
        source = Jobs([job(trial="a"), job(trial="b")])
        engine = partial(Hanging, inputs=synthetic_inputs(tmp_path))
        with closing(pool(engine, tmp_path, start_seconds=7200)) as backend:
            previous = signal.signal(signal.SIGALRM, lambda *_: source.interrupt())
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                reports = run_jobs(source, backend)
            finally:
                signal.signal(signal.SIGALRM, previous)
        assert {(r.state, r.examples_seen, r.checkpoint) for r in reports.values()} == {("stopped", 0, None)}
        assert len(reports) == 2
        assert workers() == []
