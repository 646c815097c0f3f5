"""Sweeps by the command, each in a folder of its own, to be disturbed; and what must come of them.

Random search without pruning, on closed-form curves, over three rungs, in workers: what it must end with is
known beforehand, whatever happens on the way.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from sweep.engines.synthetic import Synthetic, loss
from sweep.search.stored import StoredStudy, read_study
from sweep.tracking.store import connect
from sweep.types import Standing
from tests.studies import synthetic_inputs

NAME = "smoke"
NOISE = 0.01
# A sweep comes to its end by then, on a machine with much else to do.
PATIENCE_SECONDS = 3600
ENGINE = """\
_target_: tests.faults.engines.Paced
noise: {noise}
seconds_per_example: {pace}
"""
SCHEDULER = """\
_target_: sweep.search.scheduler.Pruned
eta: 3
rungs: 3
pruner:
  _target_: optuna.pruners.NopPruner
"""
GIVEN = (
    "+experiment=smoke",
    "engine=paced",
    "scheduler=straight_on",
    "sampler=random",
    "trusted_targets=[tests]",
)


@dataclass
class Sweep:
    """One command, which may be started again and again; what it prints goes on in one log.

    pace: seconds per example. given: more of its arguments.
    """

    folder: Path
    trials: int
    workers: int = 2
    pace: float = 0.0
    given: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""
    tracking: str = ""
    experiment: str = NAME
    printed: Path | None = None

    def __post_init__(self) -> None:
        self.storage = self.storage or f"sqlite:///{self.folder}/sweep.db"
        self.printed = self.printed or self.folder / "log"
        self.tracking = self.tracking or f"sqlite:///{self.folder}/mlflow.db"
        for name, text in {
            "engine/paced": ENGINE.format(noise=NOISE, pace=self.pace),
            "scheduler/straight_on": SCHEDULER,
        }.items():
            path = self.folder / "conf" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    @property
    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "sweep", *GIVEN, f"budget.trials={self.trials}"),
            *(f"backend.workers={self.workers}", f"storage={self.storage}", f"tracking.uri={self.tracking}"),
            f"tracking.experiment={self.experiment}",
            *self.given,
        ]

    @property
    def log(self) -> str:
        """What all starts have printed so far."""
        return self.printed.read_text() if self.printed.exists() else ""

    @property
    def told(self) -> list[tuple[int, int]]:
        """Trial and examples of each report that was printed, in order."""
        return [(int(n), int(e)) for n, e in re.findall(r"^  trial +(\d+) +(\d+) examples", self.log, re.M)]

    @contextmanager
    def running(self) -> Iterator[psutil.Popen]:
        """Started as a terminal does, with a process group of its own; ended with the block."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONUNBUFFERED": "1",
            "SWEEP_CACHE": str(self.folder / "cache"),
            **self.environment,
        }
        with self.printed.open("a") as log:
            process = psutil.Popen(
                self.command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def until(self, process: psutil.Popen, holds: Callable[[], bool]) -> float:
        """Seconds until it holds. The process must live that long."""
        begun = time.monotonic()
        while not holds():
            assert process.poll() is None, self.log
            time.sleep(0.02)
        return time.monotonic() - begun

    def until_told(self, process: psutil.Popen, reports: int) -> float:
        """Seconds until it has printed so many reports more."""
        before = len(self.told)
        return self.until(process, lambda: len(self.told) >= before + reports)

    def lives(self, process: psutil.Popen, seconds: float) -> None:
        """Let it go on for so long."""
        with suppress(psutil.TimeoutExpired):
            raise AssertionError(f"ended with {process.wait(seconds)}\n{self.log}")

    def run(self, code: int = 0) -> None:
        """From its start to its end."""
        with self.running() as process:
            assert process.wait(PATIENCE_SECONDS) == code, self.log

    def study(self) -> StoredStudy:
        """As it is stored."""
        with opened(self.storage) as storage:
            return read_study(storage, NAME)


class Outline(NamedTuple):
    """A trial as Optuna holds it."""

    number: int
    state: str
    params: dict[str, Any]
    values: dict[int, float]


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def stored_trials(url: str) -> list[FrozenTrial]:
    with opened(url) as storage:
        return storage.get_all_trials(storage.get_study_id_from_name(NAME))


def outline(url: str) -> list[Outline]:
    return [Outline(t.number, t.state.name, t.params, t.intermediate_values) for t in stored_trials(url)]


class Tally(NamedTuple):
    """What a fault did to the trials of a sweep, by their numbers. lost: absent, not complete or with another
    value than the closed form's or the undisturbed search's. doubled: trials too many, or counted twice."""

    trials: int
    lost: int
    doubled: int


def tally(sweep: Sweep, undisturbed: Sequence[Outline]) -> Tally:
    """Of an ended sweep, by what Optuna holds, by the closed form, and by what was printed.

    undisturbed: the same search, of so many trials at least, that nothing has happened to.
    """
    engine = Synthetic(inputs=synthetic_inputs(sweep.folder), noise=NOISE)
    right = {int(one.trial.id) for one in sweep.study().standings if _follows(engine, one)}
    found = outline(sweep.storage)
    whole = {one.number for one in found if one.number in right and one == undisturbed[one.number]}
    repeated = sum(times - 1 for times in Counter(sweep.told).values())
    return Tally(sweep.trials, sweep.trials - len(whole), max(0, len(found) - sweep.trials) + repeated)


def _follows(engine: Synthetic, standing: Standing) -> bool:
    """Whether each value is what its parameters and its examples give, on every rung."""
    recipe, seed = standing.trial.recipe, standing.trial.seed
    expected = {examples: engine.expected(recipe, examples, seed) for examples in standing.values}
    return standing.state == "complete" and len(expected) == 3 and standing.values == expected


def tracked(sweep: Sweep) -> Tally:
    """The same of the runs in MLflow: each trial's once, with each step and each rung once."""
    client, runs = connect(sweep.tracking), runs_of(sweep)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    by_trial: dict[str, list[Any]] = {}
    for run in runs:
        by_trial.setdefault(run.data.tags.get("sweep.trial", ""), []).append(run)
    doubled, lost = len(parents) - 1, 0
    for standing in sweep.study().standings:
        found = by_trial.get(standing.trial.id, [])
        expected = _points(standing)
        points = Counter(
            (key, point.step, point.value)
            for run in found[:1]
            for key in ("train_loss", "validation_loss")
            for point in client.get_metric_history(run.info.run_id, key)
        )
        doubled += max(0, len(found) - 1) or sum(points.values()) > len(points)
        lost += points.keys() != expected
    return Tally(sweep.trials, lost, doubled)


def runs_of(sweep: Sweep) -> list[Any]:
    """Whatever MLflow holds of it."""
    client = connect(sweep.tracking)
    (experiment,) = [one for one in client.search_experiments() if one.name == sweep.experiment]
    return list(client.search_runs([experiment.experiment_id], max_results=5000))


def _points(standing: Standing) -> set[tuple[str, int, float]]:
    """Of a whole training, whatever interrupted it: each step of a job, and each rung."""
    recipe, points, at = standing.trial.recipe, set(), 0
    for rung, value in standing.values.items():
        points.add(("validation_loss", rung, value))
        while at < rung:
            at = min(at + recipe.batch_size, rung)
            points.add(("train_loss", at, loss(recipe, at) - 0.02))
    return points


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Those that are alive."""
    return [
        child
        for child in process.children()
        if child.status() != psutil.STATUS_ZOMBIE and "sweep.backends.worker" in child.cmdline()
    ]
