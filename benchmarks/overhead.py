"""What the driver costs beside training: milliseconds per report, by storage, sampler and tracking.

    python benchmarks/overhead.py [trials]

Whole searches with an engine that trains nothing: the real study, halving, samplers, tracker and
scoreboard, 8 steps a report. Between them, in another order each time, the same by hand: Optuna's ask,
report, should_prune and tell. Reads no checkpoint; what verifying one costs at hand-out is measured by
itself. Writes `results/overhead.json`, losing cases included. Half a minute with 48 trials.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from driver import Instant, board, tracker, tracking
from jobs import RECIPE as SHARED
from sweep.backends.inline import Inline
from sweep.engines import checkpoint, synthetic
from sweep.evaluation.metrics import HardRows, Perplexity
from sweep.search.loop import search
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha
from sweep.search.space import Space
from sweep.search.storage import open_storage
from sweep.search.study import Study
from sweep.tracking.store import connect
from sweep.types import View

TRIALS = 48
REPEATS = 3
STEPS = 8
# Of training that one report stands for: the experiment support_bot on two cores, and the hard case.
SECONDS = (30, 1)
LIMIT = 0.02
# A checkpoint of support_bot at rank 16.
CHECKPOINT_BYTES = 59_000_000
RESULT = Path(__file__).parent / "results" / "overhead.json"

SCHEDULER = Asha(eta=3, rungs=3)
RECIPE = replace(SHARED, learning_rate=3e-4, warmup_fraction=0.1)
SPACE = Space.from_mapping(
    {
        "learning_rate": {"low": 3e-5, "high": 3e-3, "log": True},
        "batch_size": {"choices": [4, 8, 16, 32]},
        "lora_rank": {"choices": [4, 8, 16, 32, 64]},
        "weight_decay": {"low": 0.0, "high": 0.3},
    }
)
PLAN = Plan(
    name="overhead",
    space=SPACE,
    defaults=RECIPE,
    seed=0,
    base="none",
    trials=TRIALS,
    train_rows=288,
    evaluation=View("validation", 24),
    fingerprint={},
    metrics={"perplexity": Perplexity(), "hard_rows": HardRows(share=0.1)},
)
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=6, group=True),
}
STORAGES = ("memory", "journal", "sqlite")


class Case(NamedTuple):
    """One search. times: the trials asked for; what grows with their number shows."""

    driver: str
    storage: str
    sampler: str
    tracking: str
    times: int = 1


CASES = (
    *(Case("sweep", *case) for case in product(STORAGES, SAMPLERS, ("off", "on"))),
    Case("sweep", "sqlite", "tpe", "off", times=4),
    *(Case("by hand", *case, "off") for case in product(STORAGES, SAMPLERS)),
)


def ours(case: Case, folder: Path, trials: int) -> dict[str, float]:
    """From the first ask until every run agrees with its trial."""
    study = Study(
        replace(PLAN, trials=trials),
        storage=storage_of(case, folder),
        sampler=SAMPLERS[case.sampler],
        scheduler=SCHEDULER,
    )
    trackers = [] if case.tracking == "off" else [tracker(folder, study)]
    shown = board(study)

    def whole() -> int:
        search(study, Inline(make_engine=lambda: Instant(steps=STEPS, rows=24)), [*trackers, shown])
        for each in trackers:
            each.finish("FINISHED")
        return sum(len(standing.reports) for standing in study.standings)

    return cost(whole)


def by_hand(case: Case, folder: Path, trials: int) -> dict[str, float]:
    """The loop of Optuna's documentation: a trial goes on until the median of the others is better."""
    study = optuna.create_study(
        storage=storage_of(case, folder),
        sampler=SAMPLERS[case.sampler](0),
        pruner=optuna.pruners.MedianPruner(),
    )
    ladder = SCHEDULER.ladder(PLAN.horizon(RECIPE.epochs), PLAN.unit)

    def whole() -> int:
        return sum(trial_by_hand(study, ladder) for _ in range(trials))

    return cost(whole)


def trial_by_hand(
    study: optuna.Study,
    ladder: Sequence[int],
    spent_on: Callable[[str], AbstractContextManager[None]] = nullcontext,
) -> int:
    """How often the next trial reports. spent_on: is entered, with its name, for each call of Optuna's."""
    with spent_on("ask"):
        trial = study.ask(dict(SPACE.distributions()))
    recipe = SPACE.drawn(lambda name, _, drawn=trial.params: drawn[name], RECIPE)
    for rung in ladder:
        value = synthetic.loss(recipe, rung)
        with spent_on("report"):
            trial.report(value, rung)
        with spent_on("should_prune"):
            worse = trial.should_prune()
        if worse:
            break
    with spent_on("tell"):
        study.tell(trial, None if worse else value, TrialState.PRUNED if worse else None)
    return ladder.index(rung) + 1


def storage_of(case: Case, folder: Path) -> BaseStorage:
    """An empty one; SQLite as each driver opens it."""
    if case.storage == "memory":
        return InMemoryStorage()
    if case.storage == "journal":
        return JournalStorage(JournalFileBackend(str(folder / "journal")))
    url = f"sqlite:///{folder}/study.db"
    return open_storage(url) if case.driver == "sweep" else get_storage(url)


def cost(whole: Callable[[], int]) -> dict[str, float]:
    """Milliseconds per report of a search, which tells how many there were: of all, of the processor."""
    begun, processor = time.perf_counter(), time.process_time()
    reports = whole()
    spent, used = time.perf_counter() - begun, time.process_time() - processor
    found = {"milliseconds_per_report": spent, "processor": used}
    return {"reports": reports} | {name: seconds * 1000 / reports for name, seconds in found.items()}


def verify_milliseconds(folder: Path) -> float:
    """To verify one checkpoint, as each hand-out of a trial that goes on does."""
    with checkpoint.writing(folder / "state") as aside:
        (aside / "weights").write_bytes(os.urandom(CHECKPOINT_BYTES))
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        checkpoint.verified(folder / "state")
        found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


def measure_all(folder: Path, trials: int) -> list[dict[str, Any]]:
    """One row per case: medians of `REPEATS` searches, each time in another order; the range of the whole."""
    empty = folder / "empty"
    empty.mkdir()
    connect(tracking(empty).uri).search_experiments()
    costs: dict[Case, list[dict[str, float]]] = {case: [] for case in CASES}
    for repeat in range(-1, REPEATS):
        for case in random.Random(repeat).sample(CASES, len(CASES)):
            place = shutil.copytree(empty, folder / f"{repeat}-{CASES.index(case)}")
            # The first round is short and thrown away: it pays for imports.
            rounds = case.times * (4 if repeat < 0 else trials)
            # What the case before left behind would be collected at this one's expense.
            gc.collect()
            found = (ours if case.driver == "sweep" else by_hand)(case, place, rounds)
            if repeat >= 0:
                costs[case].append(found)
    return [row(case, trials, found) for case, found in costs.items()]


def row(case: Case, trials: int, costs: list[dict[str, float]]) -> dict[str, Any]:
    """What is printed and kept of one case. share: of the driver, by seconds of training per report."""
    median = {name: round(statistics.median(cost[name] for cost in costs), 2) for name in costs[0]}
    totals = [cost["milliseconds_per_report"] for cost in costs]
    total = statistics.median(totals)
    return {
        **case._asdict(),
        "trials": trials * case.times,
        **median,
        "range": [round(min(totals), 2), round(max(totals), 2)],
        "share": {f"{seconds} s": round(total / (total + seconds * 1000), 5) for seconds in SECONDS},
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    """What a report costs and its share; `!` where the aim is missed."""
    shares = "".join(f"{f'of {seconds} s':>10}" for seconds in SECONDS)
    heads = f"{'trials':>7}{'reports':>8}{'median':>8}{'range':>18}{'processor':>11}"
    print(f"{'milliseconds per report':<38}{heads}{shares}")
    for found in rows:
        low, high = found["range"]
        marks = [f"{value:>8.2%} {'!' if value > LIMIT else ' '}" for value in found["share"].values()]
        print(
            f"{found['driver']:<9}{found['storage']:<9}{found['sampler']:<8}{found['tracking']:<12}"
            f"{found['trials']:>7}{found['reports']:>8}{found['milliseconds_per_report']:>8.2f}"
            f"{f'{low:.2f} to {high:.2f}':>18}{found['processor']:>11.2f}{''.join(marks)}"
        )


def main() -> None:
    """Measure, print and write."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        rows = measure_all(Path(folder), trials)
        verify = round(verify_milliseconds(Path(folder)), 1)
    print_rows(rows)
    print(f"\nverifying a checkpoint of {CHECKPOINT_BYTES / 1e6:.0f} MB: {verify} ms")
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    # Above the number of cores, another's work is in the times, even in the processor's a little.
    machine |= {"load_of_5_minutes": round(os.getloadavg()[1], 2)}
    machine |= {name: version(name) for name in ("optuna", "mlflow", "sqlalchemy")}
    told = {"machine": machine, "repeats": REPEATS, "steps_per_report": STEPS, "aim": LIMIT}
    told |= {"checkpoint_bytes": CHECKPOINT_BYTES, "verify_milliseconds": verify, "cases": rows}
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
