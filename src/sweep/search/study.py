"""The study: what a search knows, kept in Optuna's storage, and the source of its jobs.

Only the driver process holds a `Study`. Everything it needs to go on after a kill is in the
storage before the next event is taken: a trial's recipe, the job that is out, one entry per rung.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.errors import StudyError
from sweep.evaluation.guards import guard_probe
from sweep.redaction import redact
from sweep.search.aims import check_directions, directions, measured, told
from sweep.search.allowance import Account, Spent, seconds_left
from sweep.search.budget import may_advance, may_start
from sweep.search.disk import Disk
from sweep.search.draw import Draw
from sweep.search.entries import (
    AIMS,
    END,
    GUARDS,
    JOB,
    NOTE,
    OUTLINE,
    RECIPE,
    SECONDS,
    SPENT,
    STOPPED,
    aims_entry,
    entry,
    guards_entry,
    judgeable,
    judged_by,
    standing_of,
    stopped_entry,
)
from sweep.search.plan import Plan
from sweep.search.route import route_of
from sweep.search.scheduler import Advance, Scheduler
from sweep.search.standings import Standings
from sweep.search.states import without_broken
from sweep.search.storage import PausedAsPruned
from sweep.types import Aimed, Capacity, Done, Job, Progress, Recipe, Report, Standing, Verdict, Wait

_logger = logging.getLogger("sweep.search")


class Study:
    """A source of jobs and the only writer to Optuna.

    Trial numbers run from 0 without gaps, whenever the driver was killed: on start, jobs that were
    out are handed out again from their last whole checkpoint. Each draw is seeded by hash(seed,
    trial number), so nothing is replayed. The sweep's clock runs from here on, the search's from the first
    `next` to the last. devices: those that each worker holds now.

    standings: of all trials; they go on as the search does.

    Raises StudyError if a study of this name with another fingerprint has trials, if another driver
    adds trials to it, or if trial 0, the recipe itself, fails: then every other would.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        storage: BaseStorage,
        sampler: Callable[[int], BaseSampler],
        scheduler: Scheduler,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
        devices: Callable[[], Sequence[float]] = lambda: (1,),
    ) -> None:
        self.plan = plan
        self.standings = Standings()
        self._scheduler = scheduler
        self._sampler = sampler
        self._clock = clock
        self._devices = devices
        self._jobs: dict[str, Job] = {}
        self._disk = disk or Disk()
        self._reports_since_dropped = 0
        self._has_told_of_disk = False
        self._again: deque[int] = deque()
        self._interrupted = False
        self.route = route_of(plan, scheduler)
        self.ladder = self.route.ladder
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = PausedAsPruned(storage, self._is_paused)
        self._optuna = optuna.create_study(
            study_name=plan.name,
            storage=self._storage,
            directions=directions(plan),
            load_if_exists=True,
        )
        self._check_fingerprint()
        check_directions(self._optuna, plan)
        self._optuna.set_user_attr(OUTLINE, self._outline())
        self._searched_before = float(self._optuna.user_attrs.get(SECONDS, 0.0))
        before = Spent(*self._optuna.user_attrs.get(SPENT, ()))
        self._account = Account(before, devices=lambda: sum(devices()), clock=clock)
        self._kept_at = -math.inf
        self._started: float | None = None
        self._recover()

    # What others read

    def standing(self, trial: str) -> Standing:
        """Where the trial of this id stands. Raises KeyError for a trial that is not in the study."""
        return self.standings.of(trial)

    @property
    def best(self) -> Standing | None:
        """As `winner_of` finds it."""
        return self.standings.best

    @property
    def fingerprint(self) -> str:
        """Of everything that the trials' results depend on, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._fingerprint, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def devices(self) -> Sequence[float]:
        """Of each worker, how many it holds now; one at least, for without any nothing would be reckoned."""
        return self._devices() or (1,)

    @property
    def spent(self) -> Spent:
        """By the sweep, stages before and after the search included."""
        return self._account.spent()

    @property
    def seconds_spent(self) -> float:
        """Driver time of the search over all starts."""
        running = 0.0 if self._started is None else self._clock() - self._started
        return self._searched_before + running

    @property
    def seconds_left(self) -> float:
        """Of the search, until the first bound on what may be spent; negative beyond it."""
        return seconds_left(self.plan.bounds, self.spent, devices=sum(self.devices))

    @property
    def expected_examples(self) -> int:
        """Examples that the whole budget trains if no trial ends early."""
        return self._scheduler.examples(self.ladder, self.plan.trials)

    @property
    def most_waiting(self) -> int:
        """States that trials keep between rungs at once, at most."""
        return self._scheduler.waiting(self.ladder, self.plan.trials)

    def note(self, name: str, fact: object) -> None:
        """Keep a fact about the sweep, plain JSON, with the study; `stored.notes` holds it for others."""
        self._optuna.set_user_attr(f"{NOTE}{name}", redact(fact))

    def noted(self, name: str) -> dict[str, Any]:
        """That fact of every study in the storage, by the study's name; those that lack it left out."""
        key, studies = f"{NOTE}{name}", self._storage.get_all_studies()
        return {study.study_name: study.user_attrs[key] for study in studies if key in study.user_attrs}

    def keep_spent(self, unless: float = 0.0) -> None:
        """Store what was spent; not where that was done less than `unless` seconds ago."""
        spent = self.spent
        if spent.seconds - self._kept_at >= unless:
            self._kept_at = spent.seconds
            self._optuna.set_user_attr(SECONDS, self.seconds_spent)
            self._optuna.set_user_attr(SPENT, list(spent))

    def make_room(self, states: int) -> bool:
        """Whether so many more states fit, once those that are spare went, as many as that takes.

        First the state before the newest of paused trials, then those of complete ones, the worst first.
        """
        complete = [one for one in self.standings if one.state == "complete"]
        for standing in (
            *(one for one in self.standings if one.state == "paused"),
            *sorted(complete, key=lambda one: -one.loss),
        ):
            if self._disk.fits(states):
                break
            self._disk.drop_spare(standing.trial.id)
        return self._disk.fits(states)

    def interrupt(self) -> None:
        """Hand out nothing more and cancel what is out; the study can be continued afterwards."""
        self._interrupted = True

    # The source

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if self._started is None:
            self._started = self._clock()
        if self._interrupted:
            return Done()
        while self._again:
            if self._may_advance(number := self._again.popleft()):
                return self._hand_out(number)
        started = self.standings
        decision = self._scheduler.next(
            started,
            self.ladder,
            may_start=may_start(
                started,
                self.ladder,
                trials=self.plan.trials,
                seconds_left=self.seconds_left,
                workers=len(self.devices),
            )
            and self._has_room(),
        )
        if decision == "start":
            return self._hand_out(self._start())
        if isinstance(decision, Advance) and self._may_advance(int(decision.trial)):
            return self._hand_out(int(decision.trial))
        if decision == "wait" or self._jobs:
            return Wait()
        self._close()
        self._searched_before, self._started = self.seconds_spent, None
        self.keep_spent()
        return Done()

    def cancelled(self) -> frozenset[str]:
        return frozenset(self._jobs) if self._interrupted else frozenset()

    # The back edge

    def record(self, event: Progress | Report) -> Progress | Report:
        """Take an event in. A report of a job that is not out, or of an older attempt, is discarded.

        A trial that reached its rung without a finite loss is kept as diverged. Returns the event as others
        should hear of it: its examples are those of the trial, earlier folds included.
        """
        job = self._jobs.get(event.job)
        if job is not None and job.before:
            event = dataclasses.replace(event, examples_seen=job.before + event.examples_seen)
        if isinstance(event, Report):
            event = dataclasses.replace(event, error=redact(event.error))
            if job is not None and job.attempt == event.attempt:
                self._take(event, job)
        return event

    def _take(self, event: Report, job: Job) -> None:
        number, stop = int(job.trial.id), job.before + job.stop
        event = without_broken(event, job)
        self._disk.came(job.trial.id, event.checkpoint)
        event = judgeable(judged_by(event, self.plan.judged_by, self.plan.metrics))
        event, aims = measured(event, self.plan, job.evaluation)
        if number == 0 and event.state == "failed":
            raise StudyError(
                f"Trial 0, the recipe's own values, failed, so every other would: {event.error}\n"
                "It was not recorded. Mend the cause and start again."
            )
        del self._jobs[event.job]
        event = self._with_stopped(event, number, stop)
        match event.state:
            case "reached":
                self._keep(event, number, job, aims)
            case "stopped":
                self._set(number, STOPPED, stopped_entry(event, stop))
            case "diverged" | "infeasible" | "failed":
                self._set(number, END, entry(event))
        self._settle(number)
        self._drop_hopeless()
        cut_short = event.state == "stopped" and not self._interrupted
        standing = self.standings[number]
        # A pruner may have ended it meanwhile.
        if (cut_short and standing.state == "paused") or self._is_due_again(standing):
            self._again.append(number)

    # How it is kept

    def _start(self) -> int:
        """A new trial, stored with its recipe in one write: there is no half of it to recover."""
        number = len(self.standings)
        recipe, noted = self._draw(number)
        distributions = self.plan.space.distributions()
        parameters = self.plan.space.encode(recipe)
        trial = create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions={name: distributions[name] for name in parameters},
            user_attrs={RECIPE: asdict(recipe)},
            system_attrs=noted,
        )
        # By which a storage knows it, if it wrote it and its answer was lost.
        trial.number = number
        stored = self._storage.create_new_trial(self._optuna._study_id, trial)
        if self._storage.get_trial(stored).number != number:
            raise StudyError(
                f"Another driver added trials to the study {self.plan.name!r} in the same storage. One study "
                "has one driver: stop the other, then start again."
            )
        self._settle(number)
        return number

    def _draw(self, number: int) -> tuple[Recipe, dict[str, object]]:
        """The recipe, trial 0's given, and what the sampler notes of it."""
        with warnings.catch_warnings():
            # The configuration chose it; a warning at each ask would bury the live table.
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = self._sampler(_seed(self.plan.seed, number))
        seen = self._storage.judging_divergence() if isinstance(sampler, GPSampler) else nullcontext()
        with seen:
            draw = Draw(self._optuna, self._storage, sampler, number)
            drawn = self.plan.space.drawn(draw.value, self.plan.defaults) if number else self.plan.defaults
            return drawn, draw.noted

    def _hand_out(self, number: int) -> Job:
        standing = self.standings[number]
        job = self.route.next_job(standing, self._frozen(number).user_attrs)
        self._set(number, JOB, {"stop": job.before + job.stop, "attempt": job.attempt})
        self._jobs[job.id] = job
        self.standings.put(dataclasses.replace(standing, state="running"))
        return job

    def _may_advance(self, number: int) -> bool:
        standing = self.standings[number]
        return may_advance(
            standing,
            self.standings,
            self.ladder,
            stop=self.route.next_stop(standing),
            seconds_left=self.seconds_left,
            workers=len(self.devices),
        )

    def _is_due_again(self, standing: Standing) -> bool:
        """Whether only the score of the state that counts is lacking."""
        return standing.state == "paused" and self.route.next_stop(standing) <= standing.reached

    def _keep(self, event: Report, number: int, job: Job, aims: Sequence[Aimed]) -> None:
        """Store what a job found at its rung: the report last, for with it the trial may be final."""
        verdicts: tuple[Verdict, ...] = ()
        entries, stop = self._frozen(number).user_attrs, job.before + job.stop
        probed = self.route.probed(job, event, entries)
        if probed is not None and self.plan.guards:
            verdicts = guard_probe(probed, self.plan.guards)
            self._set(number, GUARDS, guards_entry(verdicts))
        if aims:
            self._set(number, AIMS, aims_entry(aims))
        self._set(number, *self.route.kept(event, stop, self.standings[number], entries, verdicts))

    def _with_stopped(self, event: Report, number: int, stop: int) -> Report:
        """The report with what earlier, stopped stretches on the way to the same rung cost."""
        before = self._frozen(number).user_attrs.get(STOPPED)
        if before is None or before["stop"] != stop or stop <= self.standings[number].reached:
            return event
        seconds, tokens = event.seconds + before["seconds"], event.tokens + before["tokens"]
        return dataclasses.replace(event, seconds=seconds, tokens=tokens)

    def _settle(self, number: int) -> None:
        """Bring Optuna's view of a trial in line with its entries. Repeating it changes nothing."""
        frozen = self._frozen(number)
        trial = optuna.trial.Trial(self._optuna, frozen._trial_id)
        standing = self._stored(number)
        if not frozen.state.is_finished():
            # Optuna takes reports of one objective alone.
            for step, loss in standing.steps.items() if self.plan.aimed_by is None else ():
                if step not in frozen.intermediate_values:
                    trial.report(loss, step)
            standing = self._tell(trial, standing)
        self.standings.put(standing)
        stopped = frozen.user_attrs.get(STOPPED)
        self._disk.keep(standing, stopped, self.route.needed(standing, stopped))

    def _tell(self, trial: optuna.Trial, standing: Standing) -> Standing:
        number = trial.number
        if standing.state in ("diverged", "infeasible"):
            # Told FAIL, TPE would go on proposing that region; as PRUNED and infeasible it leaves it.
            beyond, shown = max(standing.steps, default=0) + 1, self._frozen(number).intermediate_values
            if self.plan.aimed_by is None and beyond not in shown:
                trial.report(math.nan, beyond)
            _constrain(trial, standing.state, 1.0)
            self._optuna.tell(number, state=TrialState.PRUNED)
        elif standing.state == "failed":
            self._optuna.tell(number, state=TrialState.FAIL)
        elif self.route.is_judged(standing):
            if standing.verdicts:
                _constrain(trial, GUARDS, standing.violation)
            self._optuna.tell(number, told(standing))
        elif self._is_given_up(standing):
            self._optuna.tell(number, state=TrialState.PRUNED)
        return self._stored(number)

    def _is_given_up(self, standing: Standing) -> bool:
        if not standing.values or self._is_due_again(standing):
            return False
        return not self._scheduler.keeps(self._optuna, self._frozen(int(standing.trial.id)))

    def _close(self) -> None:
        """Nothing will advance any more: what is paused is pruned."""
        for number in tuple(self.standings.paused):
            self._optuna.tell(number, state=TrialState.PRUNED)
            self._settle(number)

    def _recover(self) -> None:
        for frozen in self._optuna.get_trials(deepcopy=False):
            number = frozen.number
            self._settle(number)
            standing = self.standings[number]
            out = frozen.user_attrs.get(JOB, {}).get("stop", self.ladder[0])
            if self._is_due_again(standing) or (standing.state == "paused" and out > standing.reached):
                self._again.append(number)
        self._reports_since_dropped = len(self.standings)
        self._drop_hopeless()

    def _outline(self) -> dict[str, object]:
        """What a reader of the storage can't tell from the trials."""
        return {
            "seed": self.plan.seed,
            "base": self.plan.base,
            "space": self.plan.space.to_mapping(),
            "trials": self.plan.trials,
            "devices": sum(self.devices),
            "ladder": self.ladder,
            "judged_on": [view.rows for view in self.route.judged],
            "folds": self.plan.folds,
            "examples": self.expected_examples,
        }

    @property
    def _fingerprint(self) -> dict[str, str]:
        return {**self.plan.fingerprint, "rungs (examples)": " ".join(map(str, self.ladder))}

    def _check_fingerprint(self) -> None:
        given = self._fingerprint
        stored = self._optuna.user_attrs.get("fingerprint")
        if stored is None or not self._optuna.get_trials(deepcopy=False):
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

    # Disk

    def _has_room(self) -> bool:
        """For one more trial beside those in training: each writes a state before an older one goes."""
        needed = 2 * (len(self._jobs) + 1)
        fits = self._disk.fits(needed) or self.make_room(needed)
        if not fits and not self._has_told_of_disk:
            self._has_told_of_disk = True
            _logger.warning(
                "checkpoints: %s has room for %s more bytes, and a checkpoint takes %s: no trial is begun "
                "while it is so, those on the way go to their end. Free space, or raise budget.disk_gb; what "
                "is not begun by then, the same command begins when it is started again.",
                self._disk.place,
                f"{max(0, math.floor(self._disk.left_bytes)):,}",
                f"{self._disk.state_bytes:,}",
            )
        return fits

    def _drop_hopeless(self) -> None:
        """Remove states of trials that can't be chosen any more; not at each report, as it looks at all."""
        self._reports_since_dropped += 1
        if 8 * self._reports_since_dropped <= len(self.standings):
            return
        self._reports_since_dropped = 0
        for trial in self._scheduler.out(self.standings, self.ladder, trials=self.plan.trials):
            # Those go on whatever the scheduler says.
            if int(trial) not in self._again and not self._is_due_again(self.standings[int(trial)]):
                self._disk.drop(trial)

    # Small things

    def _is_paused(self, number: int) -> bool:
        return number < len(self.standings) and self.standings[number].state == "paused"

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._optuna._study_id, number)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._trial_id(number))

    def _stored(self, number: int) -> Standing:
        plan = self.plan
        return standing_of(self._frozen(number), seed=plan.seed, base=plan.base, folds=plan.folds)

    def _set(self, number: int, key: str, value: object) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)


def _constrain(trial: optuna.Trial, name: str, value: float) -> None:
    """Before `tell`, for a finished trial takes no constraint; Optuna warns of one that it has already."""
    if name not in trial.constraints:
        trial.set_constraint(name, value)


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
