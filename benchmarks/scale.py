"""What one driver costs at 10,000 trials on 1,000 workers, and how many workers it can serve.

    python benchmarks/scale.py [trials]

Whole searches through the real loop, study, halving, storage and observers; the engine follows closed-form
curves, and the workers live in virtual time (`sweep.backends.simulated`): a job takes so many seconds there,
and they wait for the driver as long as it really takes. From so many reports to so many more: milliseconds
per report of each thing that the driver does, memory, how long workers wait. In the first search other
samplers draw a few recipes at each mark, for what `ask` costs with such a history. The yardstick is Optuna's
own ask, report, should_prune and tell. Writes `results/scale.json`, losing cases included; about 15 minutes
with 10,000 trials.

One driver serves as many workers as reports come while one job lasts: where a job takes S seconds and the
driver s for all that a report needs, S / s + 1 (the saturation point of a closed queue, Denning and Buzen
1978, ACM Computing Surveys 10:225).
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import get_storage
from optuna.trial import TrialState, create_trial

from driver import board, tracker
from jobs import RESULTS, TINY
from overhead import PLAN, SCHEDULER, SPACE, trial_by_hand
from sweep.backends.simulated import Simulated
from sweep.data.split import DataSet
from sweep.engines import synthetic
from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic
from sweep.search.storage import open_storage
from sweep.search.study import Study
from sweep.types import Capacity, Done, Job, Observer, Progress, Report, Wait

TRIALS = 10_000
WORKERS = 1000
# Reports at which a stretch ends, as shares of the trials; the histories of `by_hand` too.
MARKS = (0.1, 0.2, 0.5, 1.0)
DRAWS = 5
# A Gaussian process takes the cube of the complete trials.
MOST_FOR_GP = 5000
# Trials of the yardstick after each history, by hand.
OF_HAND = 40
# Of their time that workers may wait for the driver.
LIMIT = 0.02
# Seconds of training that a report stands for, in the table of what one driver suffices for.
SECONDS = (1, 30, 300)
PARTS = ("record", "next", "ask", "observers", "steps")
SAMPLERS: dict[str, tuple[type[BaseSampler], dict[str, Any]]] = {
    "random": (RandomSampler, {}),
    "tpe": (TPESampler, {"multivariate": True, "group": True, "n_startup_trials": 6}),
    "tpe, one by one": (TPESampler, {"n_startup_trials": 6}),
    "gp": (GPSampler, {}),
}


class Case(NamedTuple):
    """One search. share: of the trials; probed: whether other samplers draw a few recipes."""

    storage: str
    sampler: str
    tracking: str
    seconds: float
    share: float = 1.0
    probed: bool = False


CASES = (
    Case("memory", "random", "off", 30, probed=True),
    Case("sqlite", "random", "off", 300, share=0.3),
    Case("sqlite", "tpe", "off", 30, share=0.3),
    Case("sqlite", "random", "on", 30, share=0.3),
    Case("sqlite", "random", "off", 30),
)


class Meter:
    """Seconds, of the wall and of the driver's processor, by what they were spent on, inner parts apart."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._inner = [0.0, 0.0]

    @contextlib.contextmanager
    def spent_on(self, part: str) -> Iterator[None]:
        """What passes inside counts as this."""
        outer, self._inner = self._inner, [0.0, 0.0]
        begun = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            ended = time.perf_counter(), time.thread_time()
            passed = [end - begin for begin, end in zip(begun, ended, strict=True)]
            spent = [whole - inner for whole, inner in zip(passed, self._inner, strict=True)]
            self.spent[part] = [before + more for before, more in zip(self.spent[part], spent, strict=True)]
            self._inner = [before + more for before, more in zip(outer, passed, strict=True)]


class Asked:
    """Makes samplers, whose drawing is measured: the search's own, but once each of those that are `due`."""

    def __init__(self, usual: str, meter: Meter) -> None:
        self.due: list[str] = []
        self._usual = usual
        self._classes = {
            name: metered(cls, meter, "ask" if name == usual else f"ask {name}")
            for name, (cls, _) in SAMPLERS.items()
        }

    def __call__(self, seed: int) -> BaseSampler:
        """The sampler of one draw."""
        name = self.due.pop() if self.due else self._usual
        return self._classes[name](seed=seed, **SAMPLERS[name][1])


def metered(cls: type[BaseSampler], meter: Meter, part: str) -> type[BaseSampler]:
    """The sampler's class; what it takes to propose counts as this part."""

    class Metered(cls):  # type: ignore[misc, valid-type]
        def infer_relative_search_space(self, *given: Any) -> Any:
            with meter.spent_on(part):
                return super().infer_relative_search_space(*given)

        def sample_relative(self, *given: Any) -> Any:
            with meter.spent_on(part):
                return super().sample_relative(*given)

        def sample_independent(self, *given: Any) -> Any:
            with meter.spent_on(part):
                return super().sample_independent(*given)

    return Metered


class Driver:
    """The study and who listens, measured.

    "close" is the answer that nothing is left, before which all that is paused is pruned: once, at the end.
    """

    def __init__(self, study: Study, observers: list[Observer], meter: Meter) -> None:
        self._study = study
        self._observers = observers
        self._meter = meter
        self.ended = False

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        """The study's answer."""
        standings = self._study.standings
        closes = len(standings) == self._study.plan.trials and not standings.states["running"]
        with self._meter.spent_on("close" if closes else "next"):
            return self._study.next(capacity)

    def cancelled(self) -> frozenset[str]:
        """Nothing is."""
        return self._study.cancelled()

    def take(self, event: Progress | Report) -> None:
        """As `search` does with each event."""
        step = isinstance(event, Progress)
        with self._meter.spent_on("steps" if step else "record"):
            heard = self._study.record(event)
        with self._meter.spent_on("steps" if step else "observers"):
            for observer in self._observers:
                observer.log(heard)


class Stretches:
    """What a search took between so many trials and so many more."""

    def __init__(self, case: Case, meter: Meter, backend: Simulated) -> None:
        self.reports = 0
        self.rows: list[dict[str, Any]] = []
        self._case = case
        self._meter = meter
        self._backend = backend
        self._before = self._told()

    def end(self, trials: int) -> None:
        """Here one ends, with so many trials begun."""
        told = self._told()
        passed = {name: value - self._before.get(name, 0.0) for name, value in told.items()}
        self._before = told
        reports = max(1, passed["reports"])
        parts, processor = (
            {part: round(passed.get(f"{part} {clock}", 0.0) * 1000 / reports, 3) for part in PARTS}
            for clock in ("wall", "processor")
        )
        whole = sum(parts.values())
        trained = passed["reports"] * self._case.seconds
        draws = {
            name: round(passed[f"ask {name} wall"] * 1000 / DRAWS, 1)
            for name in SAMPLERS
            if passed.get(f"ask {name} wall")
        }
        self.rows.append(
            {
                "trials": trials,
                "reports": self.reports,
                "milliseconds": parts,
                "processor_milliseconds": processor,
                "milliseconds_per_report": round(whole, 2),
                "milliseconds_per_draw_at_its_beginning": draws,
                "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1),
                "idle": round(passed["waited"] / (passed["waited"] + trained), 4) if trained else 0.0,
                "driver_busy": round(passed["busy"] / passed["now"], 4),
                "workers_for_one_driver": {f"{s} s": math.floor(s * 1000 / whole + 1) for s in SECONDS},
            }
        )

    def _told(self) -> dict[str, float]:
        spent = self._meter.spent.items()
        wall = {f"{part} wall": seconds for part, (seconds, _) in spent}
        processor = {f"{part} processor": seconds for part, (_, seconds) in spent}
        backend = {name: getattr(self._backend, name) for name in ("now", "busy", "waited")}
        return {**wall, **processor, **backend, "reports": self.reports}


def searched(case: Case, folder: Path, trials: int) -> dict[str, Any]:
    """What is kept of a search: a row for each stretch, and what is told of the whole."""
    meter = Meter()
    asked = Asked(case.sampler, meter)
    study = Study(
        replace(PLAN, trials=round(case.share * trials)),
        storage=open_storage("memory" if case.storage == "memory" else f"sqlite:///{folder}/study.db"),
        sampler=asked,
        scheduler=SCHEDULER,
    )
    inputs = Inputs(
        model=TINY,
        data=DataSet(examples={}, groups={}, fingerprint="", notes=()),
        max_tokens=32,
        folder=folder / "checkpoints",
    )
    backend = Simulated(
        make_engine=lambda: Synthetic(inputs=inputs, noise=0.01),
        workers=WORKERS,
        seconds=lambda job: case.seconds,
    )
    trackers = [] if case.tracking == "off" else [tracker(folder, study)]
    driver = Driver(study, [*trackers, board(study)], meter)
    stretches = Stretches(case, meter, backend)
    marks = {round(share * trials) for share in MARKS}
    for event in backend.run(driver):
        driver.take(event)
        stretches.reports += isinstance(event, Report)
        if isinstance(event, Report) and stretches.reports in marks:
            begun = len(study.standings)
            stretches.end(begun)
            if case.probed and begun < study.plan.trials:
                fit = [name for name in SAMPLERS if name != "gp" or begun <= MOST_FOR_GP]
                asked.due = [name for name in fit if name != case.sampler] * DRAWS
    stretches.end(len(study.standings))
    for each in trackers:
        each.close()
    trained = stretches.reports * case.seconds
    return {
        **case._asdict(),
        "idle": round(backend.waited / (backend.waited + trained), 4),
        "close_seconds": round(meter.spent["close"][0], 1),
        "virtual_seconds": round(backend.now, 1),
        "stretches": stretches.rows,
    }


def by_hand(folder: Path, trials: int) -> list[dict[str, Any]]:
    """Milliseconds of Optuna's own calls, of the processor's and for each report, after so many trials."""
    study = optuna.create_study(
        storage=get_storage(f"sqlite:///{folder}/study.db"),
        sampler=RandomSampler(seed=0),
        pruner=MedianPruner(),
    )
    ladder = SCHEDULER.ladder(PLAN.horizon(PLAN.defaults.epochs), PLAN.unit)
    rows = []
    for history in (round(share * trials) for share in MARKS):
        study.add_trials(past(history - len(study.get_trials(deepcopy=False)), ladder))
        meter, reports = Meter(), 0
        for _ in range(OF_HAND):
            reports += trial_by_hand(study, ladder, meter.spent_on)
        parts = {part: round(wall * 1000 / reports, 3) for part, (wall, _) in meter.spent.items()}
        rows.append(
            {
                "history": history,
                "milliseconds": parts,
                "milliseconds_per_report": round(sum(parts.values()), 2),
            }
        )
    return rows


def past(count: int, ladder: tuple[int, ...]) -> list[optuna.trial.FrozenTrial]:
    """Trials as a search leaves them, two thirds of them at the first rung."""
    drawing, distributions = random.Random(count), dict(SPACE.distributions())
    study = optuna.create_study(sampler=RandomSampler(seed=count))
    found = []
    for _ in range(count):
        params = study.ask(distributions).params
        recipe = SPACE.drawn(lambda name, _, drawn=params: drawn[name], PLAN.defaults)
        reached = ladder[: drawing.choice([1, 1, 2, 3])]
        losses = {rung: synthetic.loss(recipe, rung) for rung in reached}
        done = len(reached) == len(ladder)
        found.append(
            create_trial(
                state=TrialState.COMPLETE if done else TrialState.PRUNED,
                value=losses[reached[-1]],
                params=params,
                distributions=distributions,
                intermediate_values=losses,
            )
        )
    return found


def print_search(found: dict[str, Any]) -> None:
    """What a report cost by stretch; `!` where workers waited for more than `LIMIT` of their time."""
    kind = f"{found['storage']}, {found['sampler']}, tracking {found['tracking']}, {found['seconds']} s a job"
    print(
        f"\n{kind}: workers waited {found['idle']:.2%} of their time{'!' if found['idle'] > LIMIT else ''}, "
        f"closing took {found['close_seconds']} s"
    )
    heads = "".join(f"{part:>10}" for part in (*PARTS, "all"))
    print(f"{'trials':>8}{'reports':>8}{heads}{'MiB':>7}{'busy':>8}{'idle':>8}{'serves':>9}")
    for row in found["stretches"]:
        parts = "".join(f"{row['milliseconds'][part]:>10.2f}" for part in PARTS)
        serves = row["workers_for_one_driver"][f"{found['seconds']} s"]
        print(
            f"{row['trials']:>8}{row['reports']:>8}{parts}{row['milliseconds_per_report']:>10.2f}"
            f"{row['rss_mib']:>7.0f}{row['driver_busy']:>8.1%}{row['idle']:>8.2%}{serves:>9}"
        )
        for name, spent in row["milliseconds_per_draw_at_its_beginning"].items():
            print(f"{'at its beginning ' + name:>36} draws in {spent:.1f} ms")


def main() -> None:
    """Measure, print and write."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    machine: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version()}
    machine |= {name: version(name) for name in ("optuna", "mlflow", "sqlalchemy")}
    searches: list[dict[str, Any]] = []
    told = {"machine": machine, "workers": WORKERS, "limit": LIMIT, "searches": searches}
    for case in CASES:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            # What the case before left behind would be collected at this one's expense.
            gc.collect()
            found = searched(case, Path(folder), trials)
        # Above the number of cores, another's work is in the times.
        searches.append({**found, "load": [round(load, 1), round(os.getloadavg()[0], 1)]})
        print_search(searches[-1])
        write(told)
    with tempfile.TemporaryDirectory() as folder:
        told["by_hand"] = by_hand(Path(folder), trials)
    print("\nby hand on sqlite, Optuna's random sampler and median pruner")
    for row in told["by_hand"]:
        print(f"{row['history']:>8} trials: {row['milliseconds_per_report']:>7.2f} ms {row['milliseconds']}")
    write(told)


def write(told: dict[str, Any]) -> None:
    """What was found so far, for a run that is cut short."""
    (RESULTS / "scale.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
