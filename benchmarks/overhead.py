"""What the driver costs beside training: milliseconds per report, by storage, sampler and tracking.

    python benchmarks/overhead.py [trials]

Whole searches with an engine that trains nothing: the real study, halving, samplers, tracker and
scoreboard, 8 steps a report. Between them, interleaved: the same by hand, Optuna's ask, report,
should_prune and tell, with `mlflow.log_metrics` per step. Milliseconds per report are seconds per 1,000
reports. Reads no checkpoint; what verifying one costs at hand-out is measured by itself. Writes
`results/overhead.json`, losing cases included. Some three minutes with 48 trials.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.console import Console

from sweep.backends.inline import Inline
from sweep.engines import checkpoint, synthetic
from sweep.evaluation.metrics import HardRows, Perplexity
from sweep.reporting.live import Scoreboard
from sweep.search.loop import search
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha
from sweep.search.space import Space
from sweep.search.storage import open_storage
from sweep.search.study import Study
from sweep.tracking.mlflow import SweepRecord, Tracker, Tracking
from sweep.tracking.store import connect
from sweep.types import Capacity, Done, Job, Progress, Recipe, Report, RowLoss, Source, View

TRIALS = 48
REPEATS = 3
STEPS = 8
# Of training that one report stands for: the experiment support_bot on two cores, and the hard case.
SECONDS = (30, 1)
LIMIT = 0.02
# A checkpoint of support_bot at rank 16.
CHECKPOINT_BYTES = 59_000_000
RESULT = Path(__file__).parent / "results" / "overhead.json"

# ask: the sampler draws. add: the trial is stored. choose: the scheduler decides, and what else `Study.next`
# does. close: what is still paused at the end is pruned. track, show: tracker and scoreboard.
PARTS = ("ask", "add", "hand_out", "choose", "close", "record", "track", "show", "rest")
SCHEDULER = Asha(eta=3, rungs=3)
RECIPE = Recipe(
    learning_rate=3e-4,
    batch_size=8,
    weight_decay=0.0,
    lora_rank=16,
    lora_alpha=32.0,
    lora_dropout=0.0,
    target_modules="all-linear",
    rslora=False,
    warmup_fraction=0.1,
    schedule="linear",
    epochs=1.0,
    max_gradient_norm=1.0,
)
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
    seconds=None,
    train_rows=288,
    evaluation=View("validation", 24),
    fingerprint={},
    metrics={"perplexity": Perplexity(), "hard_rows": HardRows(share=0.1)},
)
RECORD = SweepRecord(
    name="overhead",
    fingerprint="a",
    params=asdict(RECIPE),
    composed_config="",
    git_commit=None,
    data_name="none",
    data_source="none",
    data_fingerprint="a",
    rows_by_split={"train": 288},
)


DISK = {"median": statistics.median, "least": min, "most": max}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=6, group=True),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One search. driver: ours or "by hand". tracking: "off", "on", or "each step" where that is written."""

    driver: str
    storage: str
    sampler: str
    tracking: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Milliseconds per report: of all, of the processor, of the first and the last quarter, by part."""

    reports: int
    trials: int
    total: float
    processor: float
    first_quarter: float
    last_quarter: float
    parts: dict[str, float]


CASES = (
    *(
        Case(driver="sweep", storage=storage, sampler=sampler, tracking=tracking)
        for storage in ("memory", "journal", "sqlite")
        for sampler in ("random", "tpe")
        for tracking in ("off", "on")
    ),
    # Every step that takes more than 10 s of training is written by itself.
    Case(driver="sweep", storage="memory", sampler="random", tracking="each step"),
    *(
        Case(driver="by hand", storage=storage, sampler=sampler, tracking="off")
        for storage in ("memory", "journal", "sqlite")
        for sampler in ("random", "tpe")
    ),
    Case(driver="by hand", storage="memory", sampler="random", tracking="each step"),
)


class Watch:
    """Seconds by part, each counted once: what runs inside another part is not the outer one's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open = ["rest"]
        self.start()

    def start(self) -> None:
        """Count from now on."""
        self._since = time.perf_counter()
        self._marks = [self._since]
        self._processor = time.process_time()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as this part's."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def around(self, owner: object, **parts: str) -> None:
        """Count each of these methods of this object as a part."""
        for method, name in parts.items():
            setattr(owner, method, self.part(name)(getattr(owner, method)))

    def reported(self) -> None:
        """Note that one more report is done with."""
        self._marks.append(time.perf_counter())

    def cost(self, trials: int) -> Cost:
        """What was watched since the beginning."""
        self._charge()
        begun, *ends = self._marks
        reports, quarter = len(ends), max(1, len(ends) // 4)
        per_report = 1000 / reports
        return Cost(
            reports=reports,
            trials=trials,
            total=(self._since - begun) * per_report,
            processor=(time.process_time() - self._processor) * per_report,
            first_quarter=(ends[quarter - 1] - begun) * 1000 / quarter,
            last_quarter=(ends[-1] - self._marks[-quarter - 1]) * 1000 / quarter,
            parts={part: self.seconds[part] * per_report for part in PARTS},
        )

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Instant:
    """An engine that trains nothing: `STEPS` steps and one report per job, no checkpoint."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        """Jobs as they come, one at a time."""
        while not isinstance(job := source.next(Capacity()), Done):
            assert isinstance(job, Job), "one slot never waits"
            yield from self._train(job)

    def close(self) -> None:
        """Nothing is held."""

    def _train(self, job: Job) -> Iterator[Progress | Report]:
        value = synthetic.loss(job.trial.recipe, job.stop)
        for step in range(1, STEPS + 1):
            yield Progress(
                job=job.id,
                trial=job.trial.id,
                examples_seen=job.stop - STEPS + step,
                train_loss=value,
                gradient_norm=1.0,
                learning_rate=job.trial.recipe.learning_rate,
                tokens=64,
            )
        yield Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=job.stop,
            state="reached",
            validation_loss=value,
            bits_per_byte=value / math.log(2) / 4,
            train_loss=value,
            rows=tuple(RowLoss(str(row), value * 8, 8) for row in range(24)),
            seconds=1.0,
            tokens=64 * STEPS,
            ended_ms=time.time_ns() // 1_000_000,
        )


class Marks:
    """An observer that notes when a report is done with; the last one of a search."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def log(self, event: Progress | Report) -> None:
        """Note a report."""
        if isinstance(event, Report):
            self._watch.reported()


def measured(case: Case, folder: Path, trials: int) -> Cost:
    """One search of this case, in a folder that holds an empty tracking store."""
    # What the case before left behind would be collected at this one's expense.
    gc.collect()
    search_of = ours if case.driver == "sweep" else by_hand
    seconds = 0.0 if case.tracking == "each step" else 10.0
    with patch("sweep.tracking.mlflow.FLUSH_SECONDS", seconds):
        return search_of(case, folder, trials)


def ours(case: Case, folder: Path, trials: int) -> Cost:
    """From the first ask until every run agrees with its trial."""
    study = Study(
        replace(PLAN, trials=trials),
        storage=opened(case.storage, folder),
        sampler=SAMPLERS[case.sampler],
        scheduler=SCHEDULER,
    )
    board = scoreboard(study)
    trackers = [] if case.tracking == "off" else [Tracker(tracking(folder), RECORD, study.standing)]
    watch = Watch()
    watch.around(study, next="choose", _draw="ask", _start="add", _hand_out="hand_out")
    watch.around(study, record="record", _close="close")
    watch.around(board, log="show")
    for tracker in trackers:
        watch.around(tracker, log="track", sync="track")
    watch.start()
    search(study, Inline(make_engine=Instant), [*trackers, board, Marks(watch)])
    for tracker in trackers:
        tracker.sync(study.standings)
    return watch.cost(trials)


def by_hand(case: Case, folder: Path, trials: int) -> Cost:
    """Without us: each trial from rung to rung, until the median of the others is better."""
    storage = f"sqlite:///{folder}/study.db" if case.storage == "sqlite" else opened(case.storage, folder)
    pruner = optuna.pruners.MedianPruner()
    study = optuna.create_study(storage=storage, sampler=SAMPLERS[case.sampler](0), pruner=pruner)
    watch = Watch()
    if case.tracking == "off":
        return by_hand_cost(study, watch, trials, lambda recipe, losses: None)
    import mlflow

    mlflow.set_tracking_uri(tracking(folder).uri)
    mlflow.set_experiment(RECORD.name)
    with mlflow.start_run():
        return by_hand_cost(study, watch, trials, log_by_hand)


def by_hand_cost(
    study: optuna.Study, watch: Watch, trials: int, log: Callable[[Recipe, dict[int, float]], None]
) -> Cost:
    """Of the loop that the documentation of Optuna shows."""
    ladder = SCHEDULER.ladder(PLAN.horizon(RECIPE.epochs), PLAN.unit)
    watch.start()
    for _ in range(trials):
        with watch.part("ask"):
            trial = study.ask(dict(SPACE.distributions()))
        recipe = SPACE.drawn(lambda name, _, drawn=trial.params: drawn[name], RECIPE)
        losses: dict[int, float] = {}
        worse = False
        for rung in ladder:
            losses[rung] = synthetic.loss(recipe, rung)
            with watch.part("record"):
                trial.report(losses[rung], rung)
                worse = trial.should_prune()
            if worse:
                break
        with watch.part("record"):
            study.tell(trial, None if worse else losses[rung], TrialState.PRUNED if worse else None)
        with watch.part("track"):
            log(recipe, losses)
        for _ in losses:
            watch.reported()
    return watch.cost(trials)


def log_by_hand(recipe: Recipe, losses: dict[int, float]) -> None:
    """A nested run with one call per step and one per rung."""
    import mlflow

    with mlflow.start_run(nested=True):
        mlflow.log_params(asdict(recipe))
        for rung, value in losses.items():
            curve = {"train_loss": value, "gradient_norm": 1.0, "learning_rate": recipe.learning_rate}
            for step in range(rung - STEPS + 1, rung + 1):
                mlflow.log_metrics(curve, step=step)
            reached = {"validation_loss": value, "bits_per_byte": value, "seconds": 1.0, "peak_mib": 0.0}
            mlflow.log_metrics(reached, step=rung)


def opened(storage: str, folder: Path) -> BaseStorage:
    """A new storage of this kind."""
    if storage == "memory":
        return InMemoryStorage()
    if storage == "journal":
        return JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return open_storage(f"sqlite:///{folder}/study.db")


def tracking(folder: Path) -> Tracking:
    """The tracking store in this folder."""
    return Tracking(uri=f"sqlite:///{folder}/mlflow.db", experiment=RECORD.name, register=False)


def scoreboard(study: Study) -> Scoreboard:
    """What prints a line per report, as where there is no terminal."""
    return Scoreboard(
        Console(file=io.StringIO()),
        standings=lambda: study.standings,
        names=study.plan.space.names,
        trials=study.plan.trials,
        examples=study.expected_examples,
        seconds_left=lambda: math.inf,
    )


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


def synchronise_milliseconds(folder: Path) -> float:
    """To have 4 KiB on the disk: what a storage waits for at each write."""
    found = []
    with (folder / "page").open("wb", buffering=0) as page:
        for _ in range(20):
            begun = time.perf_counter()
            page.write(bytes(4096))
            os.fsync(page.fileno())
            found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


def measure_all(folder: Path, trials: int) -> tuple[dict[Case, list[Cost]], list[float]]:
    """Costs of every case, `REPEATS` times in another order; the milliseconds to reach the disk between."""
    empty = folder / "empty"
    empty.mkdir()
    connect(tracking(empty).uri).search_experiments()
    costs: dict[Case, list[Cost]] = {case: [] for case in CASES}
    waits = []
    for repeat in range(-1, REPEATS):
        # The first round is short and thrown away: it pays for imports.
        for case in random.Random(repeat).sample(CASES, len(CASES)):
            place = shutil.copytree(empty, folder / f"{repeat}-{CASES.index(case)}")
            waits.append(synchronise_milliseconds(place))
            cost = measured(case, place, 4 if repeat < 0 else trials)
            if repeat >= 0:
                costs[case].append(cost)
    return costs, waits


def row(case: Case, costs: Sequence[Cost]) -> dict[str, Any]:
    """Medians, and the range of the whole."""
    total = statistics.median(cost.total for cost in costs)
    return {
        **asdict(case),
        "trials": costs[0].trials,
        "reports": costs[0].reports,
        "milliseconds_per_report": round(total, 2),
        "range": [round(end(cost.total for cost in costs), 2) for end in (min, max)],
        "processor": round(statistics.median(cost.processor for cost in costs), 2),
        "first_quarter": round(statistics.median(cost.first_quarter for cost in costs), 2),
        "last_quarter": round(statistics.median(cost.last_quarter for cost in costs), 2),
        "parts": {part: round(statistics.median(cost.parts[part] for cost in costs), 3) for part in PARTS},
        "share": {f"{seconds} s": round(share(total, seconds), 5) for seconds in SECONDS},
    }


def share(milliseconds: float, seconds: float) -> float:
    """Of the driver in the whole, where a report stands for so many seconds of training."""
    return milliseconds / (milliseconds + seconds * 1000)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Two tables: what a report costs and its share, then where it goes; `!` where the aim is missed.

    first, last: of the first and the last quarter of the reports, so growth with the trials shows.
    """
    shares = "".join(f"{f'of {seconds} s':>10}" for seconds in SECONDS)
    heads = f"{'reports':>8}{'median':>8}{'range':>18}{'processor':>11}{'first':>8}{'last':>8}"
    print(f"{'milliseconds per report':<38}{heads}{shares}")
    for found in rows:
        low, high = found["range"]
        marks = [f"{value:>8.2%} {'!' if value > LIMIT else ' '}" for value in found["share"].values()]
        print(
            f"{label(found)}{found['reports']:>8}{found['milliseconds_per_report']:>8.2f}"
            f"{f'{low:.2f} to {high:.2f}':>18}{found['processor']:>11.2f}"
            f"{found['first_quarter']:>8.2f}{found['last_quarter']:>8.2f}{''.join(marks)}"
        )
    print(f"\n{'of these':<38}" + "".join(f"{part:>9}" for part in PARTS))
    for found in rows:
        print(label(found) + "".join(f"{value:>9.2f}" for value in found["parts"].values()))


def label(found: dict[str, Any]) -> str:
    """The case, 38 characters wide."""
    return f"{found['driver']:<9}{found['storage']:<9}{found['sampler']:<8}{found['tracking']:<12}"


def main() -> None:
    """Measure, print and write."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        costs, waits = measure_all(Path(folder), trials)
        verify = round(verify_milliseconds(Path(folder)), 1)
    disk = {name: round(of(waits), 2) for name, of in DISK.items()}
    rows = [row(case, costs[case]) for case in CASES]
    print_rows(rows)
    print(f"\nto the disk and back, ms: {disk}")
    print(f"verifying a checkpoint of {CHECKPOINT_BYTES / 1e6:.0f} MB: {verify} ms")
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    machine |= {name: version(name) for name in ("optuna", "mlflow", "sqlalchemy")}
    told = {"machine": machine, "repeats": REPEATS, "steps_per_report": STEPS, "aim": LIMIT}
    told |= {"synchronise_milliseconds": disk}
    told |= {"checkpoint_bytes": CHECKPOINT_BYTES, "verify_milliseconds": verify, "cases": rows}
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
