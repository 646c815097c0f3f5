"""The study: what a search knows, kept in Optuna's storage, and the source of its jobs.

Only the driver process holds a `Study`. Everything it needs to go on after a kill is in the
storage before the next event is taken: a trial's recipe, the job that is out, one entry per rung.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.errors import StudyError
from sweep.evaluation.compare import loss_score
from sweep.search.draw import Draw
from sweep.search.scheduler import Advance, Scheduler
from sweep.search.space import Space
from sweep.search.storage import PausedAsPruned
from sweep.types import (
    Capacity,
    Done,
    Job,
    Progress,
    Recipe,
    Report,
    Standing,
    Trial,
    View,
    Wait,
)
from sweep.types import (
    TrialState as State,
)

_RUNG = "rung:"
_STATES: Mapping[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be searched.

    trials: total, failed ones and earlier starts included. seconds: of this study's driver, over
    all starts, None for no bound. train_rows: size of the train split. evaluation: the rows that
    every rung is judged on. fingerprint: named parts; a study is only continued when all agree.
    """

    name: str
    space: Space
    defaults: Recipe
    seed: int
    base: str
    trials: int
    seconds: float | None
    train_rows: int
    evaluation: View
    fingerprint: Mapping[str, str]


class Study:
    """A source of jobs and the only writer to Optuna.

    Trial numbers run from 0 without gaps, whenever the driver was killed: on start, trials that a
    predecessor left half registered are completed, jobs that were out are handed out again from
    their last checkpoint. Each ask samples from hash(seed, trial number), so nothing is replayed.

    Raises StudyError if a study of this name with another fingerprint exists.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        storage: BaseStorage,
        sampler: Callable[[int], BaseSampler],
        scheduler: Scheduler,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self._scheduler = scheduler
        self._sampler = sampler
        self._clock = clock
        self._standings: dict[int, Standing] = {}
        self._jobs: dict[str, Job] = {}
        self._again: deque[int] = deque()
        self._interrupted = False
        self._unit = int(_largest("batch_size", plan))
        self.ladder = scheduler.ladder(self._horizon(_largest("epochs", plan)), self._unit)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna.create_study(
            study_name=plan.name,
            storage=PausedAsPruned(storage, self._is_paused),
            direction="minimize",
            load_if_exists=True,
        )
        self._check_fingerprint()
        self._spent_before = float(self._optuna.user_attrs.get("seconds", 0.0))
        self._started = clock()
        self._recover()

    # What others read

    @property
    def standings(self) -> tuple[Standing, ...]:
        """All trials in order of their number."""
        return tuple(self._standings[number] for number in sorted(self._standings))

    def standing(self, trial: str) -> Standing:
        """Where the trial of this id stands. Raises KeyError for a trial outside the search."""
        return next(s for s in self._standings.values() if s.trial.id == trial)

    @property
    def best(self) -> Standing | None:
        """The complete trial with the lowest final loss."""
        complete = [s for s in self.standings if s.state == "complete"]
        return min(complete, key=final_loss, default=None)

    @property
    def fingerprint(self) -> str:
        """Of everything that the trials' results depend on, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._fingerprint, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def seconds_spent(self) -> float:
        """Driver time over all starts."""
        return self._spent_before + self._clock() - self._started

    @property
    def expected_examples(self) -> int:
        """Examples that the whole budget trains if no trial ends early."""
        return self._scheduler.examples(self.ladder, self.plan.trials)

    def rungs(self, recipe: Recipe) -> tuple[int, ...]:
        """Where a trial with this recipe is judged; the last one is its horizon."""
        horizon = self._horizon(recipe.epochs)
        return (*(rung for rung in self.ladder if rung < horizon), horizon)

    def interrupt(self) -> None:
        """Hand out nothing more and cancel what is out; the study can be continued afterwards."""
        self._interrupted = True

    # The source

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if self._interrupted:
            return Done()
        if self._again:
            return self._hand_out(self._again.popleft())
        out_of_time = self._seconds_left() <= 0
        decision = self._scheduler.next(
            self.standings,
            self.ladder,
            may_start=len(self._standings) < self.plan.trials and self._has_time(),
        )
        if decision == "wait":
            return Wait()
        if decision == "start":
            return self._hand_out(self._start())
        if isinstance(decision, Advance) and (not out_of_time or self._must_land()):
            return self._hand_out(int(decision.trial))
        if self._jobs:
            return Wait()
        self._close()
        return Done()

    def cancelled(self) -> frozenset[str]:
        return frozenset(self._jobs) if self._interrupted else frozenset()

    # The back edge

    def record(self, event: Progress | Report) -> None:
        """Take an event in. A report of a job that is not out, or of an older attempt, is discarded."""
        if isinstance(event, Progress):
            return
        job = self._jobs.get(event.job)
        if job is None or job.attempt != event.attempt or job.trial.number is None:
            return
        number = job.trial.number
        del self._jobs[event.job]
        match event.state:
            case "reached":
                self._set(number, f"{_RUNG}{job.stop}", _to_entry(_at_rung(event, job.stop)))
            case "stopped":
                self._set(
                    number, "stopped", {"examples": event.examples_seen, "checkpoint": event.checkpoint}
                )
            case "diverged" | "infeasible" | "failed":
                self._set(number, "end", _to_entry(event))
        self._optuna.set_user_attr("seconds", self.seconds_spent)
        self._settle(number)
        if event.state == "stopped" and not self._interrupted:
            self._again.append(number)

    # How it is kept

    def _start(self) -> int:
        """A new trial, stored with its recipe in one write: there is no half of it to recover."""
        number = len(self._standings)
        recipe = self._draw(number) if number else self.plan.defaults
        distributions = self.plan.space.distributions()
        parameters = self.plan.space.encode(recipe)
        self._optuna.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=parameters,
                distributions={name: distributions[name] for name in parameters},
                user_attrs={"recipe": asdict(recipe)},
            )
        )
        self._settle(number)
        return number

    def _draw(self, number: int) -> Recipe:
        with warnings.catch_warnings():
            # The configuration chose it; a warning at each ask would bury the live table.
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = self._sampler(_seed(self.plan.seed, number))
        return self.plan.space.drawn(Draw(self._optuna, sampler, number).value, self.plan.defaults)

    def _hand_out(self, number: int) -> Job:
        standing = self._standings[number]
        attributes = self._frozen(number).user_attrs
        reached = max(standing.values, default=0)
        last = standing.reports[-1] if standing.reports else None
        start, checkpoint = reached, last.checkpoint if last else None
        stopped = attributes.get("stopped")
        if stopped and stopped["examples"] > reached and stopped["checkpoint"]:
            start, checkpoint = stopped["examples"], stopped["checkpoint"]
        rungs = self.rungs(standing.trial.recipe)
        stop = next(rung for rung in rungs if rung > reached)
        out = attributes.get("job")
        attempt = out["attempt"] + 1 if out and out["stop"] == stop else 0
        job = Job(
            id=f"{standing.trial.id}@{stop}",
            attempt=attempt,
            trial=standing.trial,
            start=start,
            stop=stop,
            horizon=rungs[-1],
            checkpoint=checkpoint,
            train=View("train"),
            evaluation=self.plan.evaluation,
        )
        self._set(number, "job", {"stop": stop, "attempt": attempt})
        self._jobs[job.id] = job
        self._standings[number] = dataclasses.replace(standing, state="running")
        return job

    def _settle(self, number: int) -> None:
        """Bring Optuna's view of a trial in line with its entries. Repeating it changes nothing."""
        frozen = self._frozen(number)
        trial = optuna.trial.Trial(self._optuna, frozen._trial_id)
        standing = self._standing_of(frozen)
        if not frozen.state.is_finished():
            for rung, loss in standing.values.items():
                if rung not in frozen.intermediate_values:
                    trial.report(loss, rung)
            standing = self._tell(trial, standing)
        self._standings[number] = standing
        if standing.state not in ("running", "paused", "complete"):
            self._drop_checkpoints(standing)

    def _tell(self, trial: optuna.Trial, standing: Standing) -> Standing:
        number = trial.number
        if standing.state in ("diverged", "infeasible"):
            # Told FAIL, TPE would go on proposing that region; as PRUNED and infeasible it leaves it.
            trial.report(math.nan, max(standing.values, default=0) + 1)
            trial.set_constraint(standing.state, 1.0)
            self._optuna.tell(number, state=TrialState.PRUNED)
        elif standing.state == "failed":
            self._optuna.tell(number, state=TrialState.FAIL)
        elif max(standing.values, default=0) == self.rungs(standing.trial.recipe)[-1]:
            self._optuna.tell(number, final_loss(standing))
            return dataclasses.replace(standing, state="complete")
        elif standing.values and not self._scheduler.keeps(self._optuna, self._frozen(number)):
            self._optuna.tell(number, state=TrialState.PRUNED)
            return dataclasses.replace(standing, state="pruned")
        return standing

    def _close(self) -> None:
        """Nothing will advance any more: what is paused is pruned."""
        for standing in self.standings:
            if standing.state == "paused" and standing.trial.number is not None:
                self._optuna.tell(standing.trial.number, state=TrialState.PRUNED)
                self._settle(standing.trial.number)

    def _recover(self) -> None:
        for frozen in self._optuna.get_trials(deepcopy=False):
            number = frozen.number
            self._settle(number)
            standing = self._standings[number]
            out = frozen.user_attrs.get("job", {}).get("stop", self.ladder[0])
            if standing.state == "paused" and out > max(standing.values, default=0):
                self._again.append(number)

    def _standing_of(self, frozen: FrozenTrial) -> Standing:
        attributes = frozen.user_attrs
        trial = Trial(
            id=str(frozen.number),
            number=frozen.number,
            recipe=_to_recipe(attributes["recipe"]),
            seed=self.plan.seed,
            base=self.plan.base,
        )
        rungs = sorted((int(key.removeprefix(_RUNG)), key) for key in attributes if key.startswith(_RUNG))
        reports = tuple(_to_report(attributes[key]) for _, key in rungs)
        if "end" in attributes:
            end = _to_report(attributes["end"])
            return Standing(
                trial=trial, state=cast("State", end.state), reports=(*reports, end), reason=end.error
            )
        state: State = _STATES.get(frozen.state, "paused")
        return Standing(trial=trial, state=state, reports=reports)

    @property
    def _fingerprint(self) -> dict[str, str]:
        return {**self.plan.fingerprint, "rungs (examples)": " ".join(map(str, self.ladder))}

    def _check_fingerprint(self) -> None:
        given = self._fingerprint
        stored = self._optuna.user_attrs.get("fingerprint")
        if stored is None:
            self._optuna.set_user_attr("fingerprint", given)
            return
        changed = [key for key in sorted({*stored, *given}) if stored.get(key) != given.get(key)]
        if changed:
            lines = [f"  {key}: was {stored.get(key)}, is {given.get(key)}" for key in changed]
            raise StudyError(
                f"A study named {self.plan.name!r} exists and searched something else:\n"
                + "\n".join(lines)
                + "\nIts trials don't compare with what is asked for now. Restore the values above to go on "
                f"with it, or start a new study beside it with name={self.plan.name}_2."
            )

    # Small things

    def _horizon(self, epochs: float) -> int:
        return max(1, round(epochs * self.plan.train_rows / self._unit)) * self._unit

    def _is_paused(self, number: int) -> bool:
        standing = self._standings.get(number)
        return standing is not None and standing.state == "paused"

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._optuna._storage
        return storage.get_trial(
            storage.get_trial_id_from_study_id_trial_number(self._optuna._study_id, number)
        )

    def _set(self, number: int, key: str, value: object) -> None:
        self._optuna._storage.set_trial_user_attr(self._frozen(number)._trial_id, key, value)

    def _seconds_left(self) -> float:
        return math.inf if self.plan.seconds is None else self.plan.seconds - self.seconds_spent

    def _must_land(self) -> bool:
        """Whether the search has no winner besides the defaults yet, whatever the time."""
        return not any(s.state == "complete" and s.trial.number != 0 for s in self._standings.values())

    def _has_time(self) -> bool:
        """Whether another trial may start and still leave time to take one to the end."""
        reports = [report for s in self._standings.values() for report in s.reports]
        examples = sum(max(s.values, default=0) for s in self._standings.values())
        if not examples:
            return self._seconds_left() > 0
        rate = sum(report.seconds for report in reports) / examples
        landing = self.ladder[-1] if self._must_land() else self.ladder[0]
        return self._seconds_left() > rate * landing

    def _drop_checkpoints(self, standing: Standing) -> None:
        for report in standing.reports:
            if report.checkpoint:
                shutil.rmtree(Path(report.checkpoint), ignore_errors=True)


def final_loss(standing: Standing) -> float:
    """Validation loss at the last rung reached."""
    return standing.values[max(standing.values)]


def _largest(name: str, plan: Plan) -> float:
    """The largest value that a numeric field takes in this search."""
    searched = next((p for p in plan.space.parameters if p.name == name), None)
    if searched is None:
        return float(getattr(plan.defaults, name))
    return float(searched.choices[-1] if searched.choices else searched.distribution.high)  # type: ignore[arg-type,union-attr]


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _at_rung(report: Report, rung: int) -> Report:
    """The report as it is kept: its rows become a standard error, a batch's overshoot is left out."""
    metrics = dict(report.metrics)
    if report.rows:
        score = loss_score(report.rows)
        metrics |= {"validation_loss_error": score.standard_error, "validation_rows": float(score.examples)}
    return dataclasses.replace(report, examples_seen=rung, metrics=metrics)


def _to_recipe(entry: Mapping[str, object]) -> Recipe:
    modules = entry["target_modules"]
    fixed = modules if isinstance(modules, str) else tuple(cast("list[str]", modules))
    return Recipe(**{**entry, "target_modules": fixed})  # type: ignore[arg-type]


def _to_entry(report: Report) -> str:
    fields = asdict(dataclasses.replace(report, rows=()))
    return json.dumps(fields)


def _to_report(entry: str) -> Report:
    return Report(**{**json.loads(entry), "rows": ()})
