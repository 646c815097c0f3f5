"""Workers on a real Ray cluster: nodes come and go, workers die, drivers are killed; no trial is lost."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from sweep.backends import ray as ray_backend
from sweep.backends.ray import Ray
from sweep.errors import ConfigError, ModelError
from sweep.search.loop import Jobs, run_jobs
from sweep.types import Backend, Engine, Progress, Report
from tests.backends.clusters import Cluster, cluster
from tests.backends.drivers import driver
from tests.backends.engines import Deadly, Lingering, Noted, Slow, Stillborn, Talking, Together, Unable, noted
from tests.backends.test_command import assert_the_same_losses
from tests.backends.test_deaths import assert_as_undisturbed, searched
from tests.contracts.backend import BackendContract
from tests.contracts.engine import job
from tests.studies import synthetic_inputs

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def head() -> Iterator[Cluster]:
    """A cluster of one node, which drivers in this process and its children find."""
    with cluster() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        made.add(cpus=2, gpus=2)
        yield made


def on_ray(
    make_engine: Callable[[], Engine],
    folder: Path,
    *,
    workers: int | None = 2,
    gpus_per_worker: float = 0,
    idle_seconds: float = 300,
    silent_seconds: float = 60,
) -> Ray:
    return Ray(
        make_engine=make_engine,
        logs=str(folder / "workers"),
        checkpoints=str(folder / "checkpoints"),
        address="auto",
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=1,
        idle_seconds=idle_seconds,
        start_seconds=300,
        silent_seconds=silent_seconds,
        deaths=2,
    )


class TestRay(BackendContract):
    engines = 2

    @staticmethod
    def make_backend(make_engine: Callable[[], Engine], folder: Path) -> Backend:
        return on_ray(make_engine, folder)


def begun_by(folder: Path, name: str) -> psutil.Process:
    """The worker that began that job last."""
    (*_, last) = [line.split()[1] for line in noted(folder, "begun") if line.split()[0] == name]
    return psutil.Process(int(last))


class At:
    """Does something once, at the first event of a trial."""

    def __init__(self, trial: str, do: Callable[[str], object]) -> None:
        self._trial, self._do, self.done = trial, do, False

    def log(self, event: Progress | Report) -> None:
        if not self.done and event.trial == self._trial:
            self.done = True
            self._do(event.job)


class TestDeaths:
    def test_a_dead_worker_loses_no_trial(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        engine = partial(Deadly, inputs=synthetic_inputs(tmp_path), trial="5", when="step", times=1)
        study, told = searched(on_ray(engine, tmp_path))
        assert_as_undisturbed(study, told, tmp_path)
        (record,) = caplog.records
        assert "was killed (SIGKILL)" in record.message
        assert "It held trial 5." in record.message

    def test_a_trial_that_kills_each_worker_ends_alone_and_failed(self, tmp_path: Path) -> None:
        engine = partial(Together, inputs=synthetic_inputs(tmp_path), trial="4")
        study, _ = searched(on_ray(engine, tmp_path))
        assert noted(tmp_path, "deaths")[-1] == "4", "with no other beside it in the end"
        failed = study.standing("4")
        assert failed.state == "failed"
        assert str(failed.reason).startswith("3 workers ended while they trained it")
        others = [standing.state for standing in study.standings if standing is not failed]
        assert others == ["complete"] * 11

    def test_a_stopped_worker_is_replaced_and_never_heard_again(self, tmp_path: Path) -> None:
        stopped: list[psutil.Process] = []

        def stop(name: str) -> None:
            stopped.append(begun_by(tmp_path, name))
            stopped[0].suspend()

        engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
        study, told = searched(on_ray(engine, tmp_path, silent_seconds=3), At("0", stop))
        assert_as_undisturbed(study, told, tmp_path)
        assert not stopped[0].is_running()

    def test_what_holds_a_worker_is_killed_and_the_worker_with_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As Ray does by itself where a node's memory runs out."""
        workers: list[psutil.Process] = []

        def kill(name: str) -> None:
            workers.append(begun_by(tmp_path, name))
            post = workers[0].parent()
            assert post is not None
            post.kill()

        engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
        study, told = searched(on_ray(engine, tmp_path), At("0", kill))
        assert_as_undisturbed(study, told, tmp_path)
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        assert "It held trial 0." in caplog.records[0].message

    def test_a_worker_killed_at_each_start_ends_the_run(self, tmp_path: Path) -> None:
        engine = partial(Stillborn, inputs=synthetic_inputs(tmp_path))
        with (
            pytest.raises(Exception, match=r"SIGKILL(?s:.*)start 3 in a row"),
            closing(on_ray(engine, tmp_path, workers=1)) as backend,
        ):
            run_jobs([job()], backend)
        assert len(noted(tmp_path, "engines")) == 3


class TestNodes:
    def test_a_killed_node_loses_no_trial(
        self, head: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It takes its worker along; its trials go on at the other, from their last checkpoints."""
        second = head.add(cpus=2)
        nodes = {process.pid for process in psutil.Process(second.pid).children(recursive=True)}
        killed: list[str] = []

        class Killer:
            def log(self, event: Progress | Report) -> None:
                if killed or isinstance(event, Report):
                    return
                worker = begun_by(tmp_path, event.job)
                if nodes & {parent.pid for parent in worker.parents()}:
                    killed.append(event.job)
                    head.kill(second)

        engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
        # Three, so that both nodes have one.
        study, told = searched(on_ray(engine, tmp_path, workers=3), Killer(), trials=24)
        assert killed
        assert_as_undisturbed(study, told, tmp_path)
        assert caplog.records
        for record in caplog.records:
            assert re.search(r"with its node|can't be reached any more", record.message)

    def test_a_node_that_freezes_is_done_without_and_changes_nothing_once_it_thaws(
        self, head: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        second = head.add(cpus=2)
        nodes = {process.pid for process in psutil.Process(second.pid).children(recursive=True)}
        frozen: list[psutil.Process] = []
        workers: list[psutil.Process] = []
        reports: list[Report] = []

        class Frost:
            def log(self, event: Progress | Report) -> None:
                if frozen and caplog.records:
                    if not reports:
                        for process in frozen:
                            # Where one goes on and ends, those below it go, too.
                            with suppress(psutil.NoSuchProcess):
                                process.resume()
                    reports.extend([event] if isinstance(event, Report) else [])
                elif not frozen and isinstance(event, Progress):
                    worker = begun_by(tmp_path, event.job)
                    if nodes & {parent.pid for parent in worker.parents()}:
                        workers.append(worker)
                        frozen.extend(head.freeze(second))

        engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
        study, told = searched(on_ray(engine, tmp_path, workers=3, silent_seconds=5), Frost(), trials=48)
        assert reports, "it thawed before the end"
        assert "gave no sign of life for 5 s" in caplog.records[0].message
        assert_as_undisturbed(study, told, tmp_path)
        assert psutil.wait_procs(workers, timeout=60)[1] == []
        head.kill(second)

    def test_workers_come_with_a_node(self, head: Cluster, tmp_path: Path) -> None:
        """Asked for while there is no room, as an autoscaler sees it; placed where room comes."""
        added: list[object] = []
        engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
        source = Jobs([job(0, 240_000, trial=str(number), horizon=240_000) for number in range(6)])
        running: set[str] = set()
        with closing(on_ray(engine, tmp_path, workers=None)) as backend:
            for event in backend.run(source):
                running.add(event.trial)
                if len(running) == 2 and not added:
                    added.append(head.add(cpus=2))
                if len(running) == 4:
                    source.interrupt()
        assert len(noted(tmp_path, "engines")) == 4
        assert added

    def test_nodes_that_can_not_load_are_done_without(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a cluster of its own, one has no model, another no sweep; a good one joins afterwards."""
        (tmp_path / "poison" / "sweep").mkdir(parents=True)
        (tmp_path / "poison" / "sweep" / "__init__.py").write_text("raise ImportError('of another version')")
        path = os.pathsep.join([str(tmp_path / "poison"), os.environ.get("PYTHONPATH", "")])
        coming = iter([{"UNABLE": "1"}, {"PYTHONPATH": path}, {}])
        added: list[object] = []
        error = ModelError("model.path=/nowhere: no such folder.")
        engine = partial(Unable, inputs=synthetic_inputs(tmp_path), error=error)
        source = Jobs([job(0, 10**6, trial=str(number), horizon=10**6) for number in range(9)])
        running: set[str] = set()
        with cluster(host=50) as made, closing(on_ray(engine, tmp_path, workers=None)) as backend:
            for name, value in made.environment.items():
                monkeypatch.setenv(name, value)
            made.add(cpus=2)
            for event in backend.run(source):
                running.add(event.trial)
                if len(running) == 2 and len(added) == len(caplog.records) < 3:
                    added.append(made.add(cpus=1, environment=next(coming)))
                if len(running) == 3:
                    source.interrupt()
        first, second = (record.message for record in caplog.records)
        assert first.endswith("on that node, and the others go on. model.path=/nowhere: no such folder.")
        assert f"on {socket.gethostname()}, node " in first
        assert "can't run workers: ImportError: of another version Install" in second
        assert len(noted(tmp_path, "unable")) == 1, "and not tried again"

    def test_a_node_where_others_could_start_is_tried_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Were it avoided, nobody could take the place of the one that is killed."""
        monkeypatch.setattr(ray_backend, "_PAUSE_SECONDS", 1)
        error = ModelError("model.path=/nowhere: no such folder.")
        engine = partial(Unable, inputs=synthetic_inputs(tmp_path), worker="1", error=error)
        killed: list[psutil.Process] = []

        class Killer:
            def log(self, event: Progress | Report) -> None:
                if caplog.records and not killed and isinstance(event, Progress):
                    killed.append(begun_by(tmp_path, event.job))
                    killed[0].kill()

        study, told = searched(on_ray(engine, tmp_path), Killer(), trials=48)
        assert killed
        assert_as_undisturbed(study, told, tmp_path)
        first, *others = (record.message for record in caplog.records)
        assert "Worker 1 could not start on " in first
        assert "another is tried in a minute, and the others go on." in first
        assert not any("could not start" in text for text in others), "told once"

    def test_one_without_work_is_let_go(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It takes its time to clear up, while the other's steps are heard."""
        engine = partial(Lingering, inputs=synthetic_inputs(tmp_path))
        source = Jobs([job(0, 8, trial="short"), job(0, 10**6, trial="long", horizon=10**6)])
        closed_before_the_end: list[str] = []
        with closing(on_ray(engine, tmp_path, idle_seconds=0.5)) as backend:
            for event in backend.run(source):
                if isinstance(event, Progress) and noted(tmp_path, "closing"):
                    (tmp_path / "go").touch()
                if isinstance(event, Progress) and noted(tmp_path, "closed"):
                    closed_before_the_end = noted(tmp_path, "closed")
                    source.interrupt()
        begun = dict(line.split() for line in noted(tmp_path, "begun"))
        assert closed_before_the_end == [begun["short@8"]]
        assert caplog.records == []

    def test_each_worker_has_a_gpu_of_its_own_or_its_share(self, tmp_path: Path) -> None:
        """Ray deals out GPUs that it was told of, whether there are any or not."""
        jobs = [job(trial=name) for name in "abcd"]
        for gpus, seen in ((1, [{"0"}, {"1"}]), (0, [{""}]), (0.5, [{"0"}, {"1"}])):
            folder = tmp_path / str(gpus)
            engine = partial(Noted, inputs=synthetic_inputs(folder))
            with closing(on_ray(engine, folder, gpus_per_worker=gpus)) as backend:
                run_jobs(jobs, backend)
            for line in noted(folder, "engines"):
                assert {line.partition(" ")[2]} in seen

    def test_what_is_waited_for_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_backend, "_WAITING_SECONDS", 0.5)
        source = Jobs([job(trial="a"), job(trial="b")])

        class Heard(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                source.interrupt()

        heard = Heard()
        logging.getLogger("sweep.backends").addHandler(heard)
        try:
            engine = partial(Noted, inputs=synthetic_inputs(tmp_path))
            with closing(on_ray(engine, tmp_path, gpus_per_worker=5)) as backend:
                reports = run_jobs(source, backend)
        finally:
            logging.getLogger("sweep.backends").removeHandler(heard)
        assert {report.state for report in reports.values()} == {"stopped"}
        (record,) = caplog.records
        assert "takes 1 CPUs and 5 GPUs" in record.message


class TestDriver:
    def test_the_tiny_model_has_the_same_losses_in_workers(self, tmp_path: Path) -> None:
        assert_the_same_losses(partial(on_ray, folder=tmp_path), tmp_path)

    @pytest.mark.parametrize("stopped", [False, True])
    def test_a_killed_driver_leaves_no_worker(self, stopped: bool, tmp_path: Path) -> None:
        with driver(on_ray, tmp_path) as process:
            workers = [begun_by(tmp_path, f"{trial}@1000000") for trial in "ab"]
            if stopped:
                workers[0].suspend()
            process.kill()
        assert psutil.wait_procs(workers, timeout=60)[1] == []

    def test_a_worker_writes_to_its_log_and_warns_through_the_driver(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = partial(Talking, inputs=synthetic_inputs(tmp_path))
        with closing(on_ray(engine, tmp_path, workers=1)) as backend:
            run_jobs([job(trial="a")], backend)
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("sweep.engines", logging.WARNING)
        assert record.getMessage() == "worker 0: Trial a is odd."
        log = (tmp_path / "workers" / "0.log").read_text()
        assert "a line for the log" in log
        assert "a@48 ends after 48 examples: reached" in log

    def test_signals_stay_the_drivers(self, tmp_path: Path) -> None:
        source = Jobs([job(0, 240_000, trial="a", horizon=240_000)])
        before = signal.signal(signal.SIGTERM, lambda *_: source.interrupt())
        states: list[str] = []
        try:
            engine = partial(Slow, inputs=synthetic_inputs(tmp_path))
            with closing(on_ray(engine, tmp_path)) as backend:
                for event in backend.run(source):
                    if isinstance(event, Report):
                        states.append(event.state)
                    elif not source.cancelled():
                        signal.raise_signal(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert states == ["stopped"]

    def test_who_has_another_token_is_not_let_in(self, head: Cluster) -> None:
        """Asked by Ray itself, in a process that has read no token yet."""
        strange = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN_PATH"}
        said = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", head.address],
            env={**strange, "RAY_AUTH_TOKEN": "f" * 64},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert said.returncode != 0
        assert "Unauthenticated" in said.stderr

    def test_a_cluster_without_a_token_is_joined_with_a_warning(self) -> None:
        disabled = {"RAY_AUTH_MODE": "disabled"}
        join = "import sys; from sweep.backends.ray_cluster import join; join(sys.argv[1])"
        with cluster() as unguarded:
            unguarded.add(cpus=1, environment=disabled)
            said = subprocess.run(
                [sys.executable, "-c", join, unguarded.address],
                env={**os.environ, **unguarded.environment, **disabled},
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            )
        assert "asks for no token: whoever reaches its ports can run code on every node" in said.stderr

    def test_an_address_where_no_cluster_is_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.2:9")
        engine = partial(Noted, inputs=synthetic_inputs(tmp_path))
        with pytest.raises(ConfigError, match=r"^backend\.address: no Ray cluster .* at 'auto'"):
            run_jobs([job(trial="a")], on_ray(engine, tmp_path))
