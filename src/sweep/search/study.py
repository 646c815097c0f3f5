"""The study: what a search knows, kept in Optuna's storage, and the source of its jobs.

Only the driver process holds a `Study`. Everything it needs to go on after a kill is in the
storage before the next event is taken: a trial's recipe, the job that is out, one entry per rung.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from sweep.errors import StudyError
from sweep.evaluation.guards import guard_probe
from sweep.redaction import redact
from sweep.search.aims import check_directions, measured
from sweep.search.allowance import Spent
from sweep.search.budget import may_advance, may_start
from sweep.search.disk import Disk
from sweep.search.entries import (
    AIMS,
    END,
    GUARDS,
    JOB,
    NOTE,
    OUTLINE,
    STOPPED,
    aims_entry,
    entry,
    guards_entry,
    judgeable,
    judged_by,
    on_its_way,
    stopped_entry,
    with_stopped,
)
from sweep.search.identity import check_fingerprint, digest_of, fingerprint_of, outline_of
from sweep.search.ledger import Ledger
from sweep.search.plan import Plan
from sweep.search.room import Room
from sweep.search.route import is_due_again, route_of
from sweep.search.scheduler import Advance, Scheduler
from sweep.search.standings import Standings
from sweep.search.states import without_broken
from sweep.search.trials import Trials
from sweep.types import Aimed, Capacity, Done, Job, Progress, Report, Standing, Verdict, Wait


class Study:
    """A source of jobs and the only writer to Optuna.

    Trial numbers run from 0 without gaps, whenever the driver was killed: on start, jobs that were
    out are handed out again from their last whole checkpoint. Each draw is seeded by hash(seed,
    trial number), so nothing is replayed. The sweep's clock runs from here on, the search's from the first
    `next` to the last. devices: those that each worker holds now.

    standings: of all trials; they go on as the search does. fingerprint: of everything that their results
    depend on.

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
        self._jobs: dict[str, Job] = {}
        self._disk = disk or Disk()
        self._again: deque[int] = deque()
        self._interrupted = False
        self.route = route_of(plan, scheduler)
        self.ladder = self.route.ladder
        self._room = Room(
            self._disk,
            self.standings,
            scheduler=scheduler,
            ladder=self.ladder,
            trials=plan.trials,
            goes_on=self._goes_on,
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._trials = Trials(plan, storage, route=self.route, scheduler=scheduler, standings=self.standings)
        self._optuna = self._trials.study
        fingerprint = fingerprint_of(plan, self.ladder)
        self.fingerprint = digest_of(fingerprint)
        check_fingerprint(self._optuna, plan, fingerprint)
        check_directions(self._optuna, plan)
        self._ledger = Ledger(self._optuna, plan.bounds, devices=devices, clock=clock)
        outline = outline_of(plan, self.route, devices=sum(self.devices), examples=self.expected_examples)
        self._optuna.set_user_attr(OUTLINE, outline)
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
    def devices(self) -> Sequence[float]:
        """Of each worker, how many it holds now; one at least, for without any nothing would be reckoned."""
        return self._ledger.devices

    @property
    def spent(self) -> Spent:
        """By the sweep, stages before and after the search included."""
        return self._ledger.spent

    @property
    def seconds_spent(self) -> float:
        """Driver time of the search over all starts."""
        return self._ledger.seconds_spent

    @property
    def seconds_left(self) -> float:
        """Of the search, until the first bound on what may be spent; negative beyond it."""
        return self._ledger.seconds_left

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
        key, studies = f"{NOTE}{name}", self._trials.studies()
        return {study.study_name: study.user_attrs[key] for study in studies if key in study.user_attrs}

    def keep_spent(self, unless: float = 0.0) -> None:
        """Store what was spent; not where that was done less than `unless` seconds ago."""
        self._ledger.keep(unless)

    def make_room(self, states: int) -> bool:
        """Whether so many more states fit once others went, as `Room.clear` chooses them."""
        return self._room.clear(states)

    def interrupt(self) -> None:
        """Hand out nothing more and cancel what is out; the study can be continued afterwards."""
        self._interrupted = True

    # The source

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        self._ledger.begin()
        if self._interrupted:
            return Done()
        while self._again:
            if self._may_advance(number := self._again.popleft()):
                return self._hand_out(number)
        within_budget = may_start(
            self.standings,
            self.ladder,
            trials=self.plan.trials,
            seconds_left=self.seconds_left,
            workers=len(self.devices),
        )
        lacks_room = within_budget and not self._room.allows(out=len(self._jobs))
        decision = self._scheduler.next(
            self.standings, self.ladder, may_start=within_budget and not lacks_room
        )
        if decision == "start":
            return self._hand_out(self._start())
        if isinstance(decision, Advance) and self._may_advance(int(decision.trial)):
            return self._hand_out(int(decision.trial))
        if decision == "wait" or self._jobs:
            return Wait()
        # Where room is lacking another start begins the others, and who is paused may go on among them.
        if not lacks_room:
            self._close()
        self._ledger.end()
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
        event = with_stopped(event, stop, self._trials.entries(number))
        match event.state:
            case "reached":
                self._keep(event, number, job, aims)
            case "stopped":
                self._trials.put(number, STOPPED, stopped_entry(event, stop))
            case "diverged" | "infeasible" | "failed":
                self._trials.put(number, END, entry(event))
        self._settle(number)
        self._room.after_report()
        cut_short = event.state == "stopped" and not self._interrupted
        standing = self.standings[number]
        if cut_short or is_due_again(self.route, standing):
            self._again.append(number)

    # How it is kept

    def _start(self) -> int:
        number = len(self.standings)
        self._trials.begin(number, self._sampler)
        self._settle(number)
        return number

    def _hand_out(self, number: int) -> Job:
        standing = self.standings[number]
        job = self.route.next_job(standing, self._trials.entries(number))
        self._trials.put(number, JOB, {"stop": job.before + job.stop, "attempt": job.attempt})
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

    def _goes_on(self, number: int) -> bool:
        """Whatever the scheduler says."""
        return number in self._again or is_due_again(self.route, self.standings[number])

    def _keep(self, event: Report, number: int, job: Job, aims: Sequence[Aimed]) -> None:
        """Store what a job found at its rung: the report last, for with it the trial may be final."""
        verdicts: tuple[Verdict, ...] = ()
        entries, stop = self._trials.entries(number), job.before + job.stop
        probed = self.route.probed(job, event, entries)
        if probed is not None and self.plan.guards:
            verdicts = guard_probe(probed, self.plan.guards)
            self._trials.put(number, GUARDS, guards_entry(verdicts))
        if aims:
            self._trials.put(number, AIMS, aims_entry(aims))
        self._trials.put(number, *self.route.kept(event, stop, self.standings[number], entries, verdicts))

    def _settle(self, number: int) -> None:
        """Take in where a trial stands by its entries. Repeating it changes nothing."""
        standing, stopped = self._trials.settled(number), self._trials.entries(number).get(STOPPED)
        self.standings.put(standing)
        self._disk.keep(standing, stopped, self.route.needed(standing, stopped))

    def _close(self) -> None:
        """Nothing will advance any more: what is paused is pruned."""
        for number in tuple(self.standings.paused):
            self._trials.prune(number)
            self._settle(number)

    def _recover(self) -> None:
        for frozen in self._optuna.get_trials(deepcopy=False):
            number = frozen.number
            self._settle(number)
            standing = self.standings[number]
            was_out = standing.state == "paused" and on_its_way(frozen.user_attrs, standing.reached)
            if was_out or is_due_again(self.route, standing):
                self._again.append(number)
        self._room.drop_hopeless()
