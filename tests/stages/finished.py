"""A study on closed-form curves that has come to its end, rows to confirm it on, an engine that is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sweep.backends.inline import Inline
from sweep.data.baselines import Baseline, Canned, FewShot
from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import RandomLlama
from sweep.engines.synthetic import Synthetic
from sweep.evaluation.confirmation import Confirmation
from sweep.evaluation.guards import Guards
from sweep.evaluation.objective import Loss, MetricObjective, Objective
from sweep.evaluation.outcomes import Judge
from sweep.evaluation.scorers import Exact
from sweep.search.loop import search
from sweep.search.scheduler import Full
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.stages.baselines import Baselines
from sweep.stages.confirm import Confirmed, confirm
from sweep.stages.finalists import Confirm, Finalists
from sweep.stages.yardstick import Yardstick
from sweep.types import (
    Capacity,
    Done,
    Engine,
    Job,
    Progress,
    Report,
    ReportState,
    Source,
    Split,
    Trial,
    View,
    Wait,
)
from tests.recipes import DEFAULTS
from tests.studies import open_study

CANNED = "We will call you."
LOSS = Loss(rung_metric="loss")
EXACT = MetricObjective(metric="exact", rung_metric="loss", escalation=(), proxy="exact", labels=None)
# A decade below the best learning rate of its batch size.
POOR = replace(DEFAULTS, learning_rate=3e-5)
RATES = Space.from_mapping({"learning_rate": {"choices": [3e-5, 1e-4, 2e-4, 3e-4, 5e-4]}})


def rows(split: Split, count: int) -> tuple[Example, ...]:
    """Every fifth is formal, and answered by the canned reply."""
    return tuple(
        Example(
            id=f"{split}-{number}",
            messages=(
                Message(role="user", content=f"question {number} of {split}"),
                Message(role="assistant", content=f"answer {number}" if number % 5 else CANNED),
            ),
            intent=None,
            required=(),
            forbidden=(),
            slices={"style": "plain" if number % 5 else "formal"},
        )
        for number in range(count)
    )


def data(test: int = 100) -> DataSet:
    examples: dict[Split, tuple[Example, ...]] = {
        "train": rows("train", 12),
        "validation": rows("validation", 24),
        "confirm": rows("confirm", 45),
        "test": rows("test", test),
        "golden": (),
        "general": rows("general", 12),
    }
    names = [row.id for split in examples.values() for row in split]
    groups = {name: number for number, name in enumerate(names)}
    return DataSet(examples=examples, groups=groups, fingerprint="rows", notes=())


DATA = data()


def synthetic(folder: Path, *, noise: float = 0.01, of: DataSet = DATA) -> Synthetic:
    """The engine on these rows, its checkpoints below the folder."""
    model = RandomLlama(hidden_size=8, layers=1, heads=1, seed=0, dtype="float32")
    return Synthetic(
        inputs=Inputs(model=model, data=of, max_tokens=64, folder=folder / "checkpoints"), noise=noise
    )


class Watched:
    """An engine whose jobs are seen. bad: how jobs end, by job or trial, in place of "reached".

    reports: after so many comes an interruption, before the next is given; None: none comes. answers:
    whether it replies to prompts.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        bad: Mapping[str, ReportState] | None = None,
        reports: int | None = None,
        answers: bool = True,
    ) -> None:
        self.jobs: list[Job] = []
        self._engine, self._bad, self._left, self._answers = engine, bad or {}, reports, answers

    def run(self, source: Source) -> Iterator[Progress | Report]:
        for event in self._engine.run(_Seen(source, self.jobs)):
            yield event if isinstance(event, Progress) else self._ended(event)

    def close(self) -> None:
        self._engine.close()

    def of_split(self, split: Split) -> list[Job]:
        """Those that were scored on that split's rows."""
        return [job for job in self.jobs if job.evaluation.split == split]

    def _ended(self, report: Report) -> Report:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        state = self._bad.get(report.job) or self._bad.get(report.trial)
        if state is None:
            return report if self._answers else replace(report, replies=())
        return replace(
            report,
            state=state,
            validation_loss=None,
            rows=(),
            replies=(),
            probed=(),
            checkpoint=None,
            error="on purpose",
        )


class _Seen:
    def __init__(self, source: Source, jobs: list[Job]) -> None:
        self._source, self._jobs = source, jobs

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        job = self._source.next(capacity)
        if isinstance(job, Job):
            self._jobs.append(job)
        return job

    def cancelled(self) -> frozenset[str]:
        return self._source.cancelled()


def inline(engine: Engine) -> Inline:
    return Inline(make_engine=lambda: engine)


def finished(engine: Engine, **plan: Any) -> Study:
    """A study of six trials, each trained to its end."""
    given = {"space": RATES, "defaults": POOR, "trials": 6, **plan}
    study = open_study(scheduler=Full(), **given)
    search(study, inline(engine), [])
    return study


def yardstick(objective: Objective[Any] = LOSS, of: DataSet = DATA) -> Yardstick:
    judge = (
        Judge(objective, {"exact": Exact()}, of.examples["validation"])
        if isinstance(objective, MetricObjective)
        else None
    )
    return Yardstick(objective=objective, judge=judge, data=of, reply_tokens=32, metrics={})


WAYS: dict[str, Baseline] = {
    "canned": Canned(text=CANNED),
    "few_shot": FewShot(examples=2, retrieved=False, characters=1000),
}


def baselines(
    measure: Yardstick, engine: Engine, folder: Path, ways: Mapping[str, Baseline] = WAYS
) -> Baselines:
    return Baselines(
        ways=ways,
        yardstick=measure,
        backend=inline(engine),
        base=Trial(id="base", number=None, recipe=POOR, seed=0, base="none"),
        path=folder / "baselines.json",
    )


def finals(
    study: Study, measure: Yardstick, engine: Engine, folder: Path, *, top_k: int = 2, seeds: int = 2
) -> Finalists:
    return Finalists(
        study=study,
        yardstick=measure,
        backend=inline(engine),
        asked=Confirm(top_k=top_k, seeds=seeds, rows=None),
        probe=study.plan.probe,
        folder=folder,
    )


def confirmed(
    study: Study,
    folder: Path,
    guards: Guards,
    *,
    measure: Yardstick | None = None,
    engine: Watched | None = None,
    ways: Mapping[str, Baseline] = WAYS,
    top_k: int = 2,
) -> tuple[Confirmed, list[Job]]:
    """What a start of the stage finds, and the jobs that reached the engine."""
    measure, engine = measure or yardstick(), engine or Watched(synthetic(folder))
    simpler = baselines(measure, engine, folder, ways)
    found = confirm(
        finals(study, measure, engine, folder, top_k=top_k),
        simpler,
        simpler.tried(View("confirm")),
        guards=guards,
    )
    return found, engine.jobs


def told(confirmation: Confirmation) -> str:
    """All of it; values that are not numbers are alike."""
    return json.dumps(asdict(confirmation))


def trainings(jobs: list[Job]) -> dict[str, dict[str, Job]]:
    """Those of the finalists, by trial and name of the seed."""
    found: dict[str, dict[str, Job]] = {}
    for job in jobs:
        if job.id.startswith("confirm/"):
            trial, seed = job.trial.id.split("/")
            found.setdefault(trial, {})[seed] = job
    return found
