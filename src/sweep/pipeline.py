"""The stages of a sweep in their order, and what they print."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path

from sweep.analysis.effects import effects_of
from sweep.assembly import Assembly, assemble, audited, baselines_of, yardstick_of
from sweep.backends.devices import visible_gpus
from sweep.backends.metered import Metered
from sweep.commands import interruptible
from sweep.config import Config
from sweep.data.audit.finding import Audited
from sweep.driver import only_driver
from sweep.errors import TrainingError
from sweep.handover import best_config
from sweep.opening import asked_of, check_room, open_study, study_record
from sweep.reporting.console import (
    Transcript,
    tell_audit,
    tell_baselines,
    tell_baselines_begin,
    tell_comparison,
    tell_confirmation,
    tell_confirmation_begin,
    tell_effects,
    tell_goal,
    tell_refusal,
    tell_trades,
)
from sweep.reporting.html import write_report
from sweep.reporting.live import Scoreboard, duration
from sweep.reporting.markdown import as_markdown
from sweep.reporting.spending import spent_of, total_of
from sweep.search.allowance import seconds_left
from sweep.search.lock import only_writer
from sweep.search.loop import search
from sweep.search.notes import Handed
from sweep.search.outage import Patient
from sweep.search.storage import open_storage
from sweep.search.stored import StoredStudy, read_study
from sweep.search.study import Study
from sweep.stages.analyse import log_effects, log_spent, log_trades
from sweep.stages.audit import log_audit, require_fit
from sweep.stages.baselines import Baselines, Tried, log_baselines
from sweep.stages.confirm import Confirmed, confirm, finalists_of, log_confirmed, simpler_from
from sweep.stages.finalists import Finalists
from sweep.stages.publish import publish
from sweep.stages.untrained import expectation, score_base
from sweep.tracking.best import training_command
from sweep.tracking.mlflow import Tracker
from sweep.tracking.record import SweepRecord
from sweep.types import SPLITS, Standing, View


class Pipeline:
    """One sweep, from data to best configuration. Each stage finds what an earlier start has done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._opened = open_storage(config.storage)
        self._storage = Patient(self._opened, minutes=config.storage_patience)
        self._told = Transcript()
        self._begun = time.monotonic()
        # Trainings outside the search, by id.
        self._others: dict[str, Standing] = {}

    def run(self) -> int:
        """All stages; the exit code."""
        config = self._config
        with (
            interruptible(),
            only_driver(Path(config.output)),
            only_writer(self._opened, config.experiment),
        ):
            self._told.title("sweep", config.experiment)
            assembly = assemble(config)
            self._tell_data(assembly)
            assembly.clear_leftovers()
            checked = audited(assembly)
            require_fit(checked)
            tell_audit(self._told, checked)
            yardstick = yardstick_of(assembly)
            study, disk = open_study(assembly, yardstick, self._storage, self._told)
            check_room(config, study, disk, self._told)
            assembly = replace(assembly, backend=Metered(assembly.backend, study.keep_spent))
            study.note("audit", checked.as_json())
            study.note("budget", asdict(config.budget))
            record = study_record(assembly, study)
            study.note("asked", asdict(asked_of(config, record)))
            tracker = self._open_tracker(record, study)
            log_audit(checked, tracker, assembly.folder)
            with closing(assembly.backend), tracker, ExitStack() as ending:
                ending.callback(lambda: log_spent(study.plan.bounds, study.spent, tracker))
                goal = yardstick.goal
                study.note("goal", asdict(goal))
                tell_goal(self._told, goal)
                baselines = baselines_of(assembly, yardstick)
                tried = self._try_baselines(baselines, study, tracker)
                self._tell_expectation(assembly, study)
                self._search(assembly, study, tracker)
                confirmed = self._confirm(assembly, study, baselines, tried, tracker)
                self._conclude(assembly, study, confirmed, checked, tracker)
        return 0

    # Stages

    def _tell_data(self, assembly: Assembly) -> None:
        rows, folds = assembly.data.examples, self._config.validation.folds
        sizes = "  ".join(f"{name} {len(rows[name])}" for name in SPLITS if name in rows)
        dealt = f"; train in {folds} folds, validation rows included" if folds else ""
        total = sum(map(len, rows.values()))
        self._told.stage("data", f"{total} rows of {self._config.data.path}: {sizes}{dealt}")
        for note in assembly.data.notes:
            self._told.more(note)

    def _open_tracker(self, record: SweepRecord, study: Study) -> Tracker:
        def standing(trial: str) -> Standing:
            return self._others[trial] if trial in self._others else study.standing(trial)

        tracker = Tracker(self._config.tracking, record, standing, folder=Path(self._config.output))
        tracker.sync(study.standings)
        return tracker

    def _try_baselines(self, baselines: Baselines, study: Study, tracker: Tracker) -> tuple[Tried, ...]:
        objective = baselines.yardstick.objective
        tell_baselines_begin(self._told, objective, self._confirm_rows(baselines))
        tried = baselines.tried(View("confirm", self._config.confirm.rows))
        simpler = [simpler_from(one) for one in tried]
        study.note("baselines", {"found": [asdict(one) for one in simpler]})
        log_baselines(tried, tracker)
        tell_baselines(self._told, simpler, objective)
        return tried

    def _confirm_rows(self, baselines: Baselines) -> int:
        return len(baselines.yardstick.data.examples["confirm"][: self._config.confirm.rows])

    def _tell_expectation(self, assembly: Assembly, study: Study) -> None:
        report = score_base(study, assembly.backend)
        study.note("base_loss", report.validation_loss)
        self._told.stage(
            "base",
            f"{assembly.model.identity}: validation loss {report.validation_loss:.4f} before any training",
        )
        self._told.stage("search", expectation(study, report))
        if any(bound.per_device_second for bound in study.plan.bounds) and not visible_gpus():
            counted = sum(study.devices)
            self._told.more(f"no GPU is seen here: each worker counts as one device, {counted:g} in all")

    def _search(self, assembly: Assembly, study: Study, tracker: Tracker) -> None:
        board = Scoreboard(
            self._told.console,
            standings=study.standings,
            names=study.plan.space.names,
            trials=study.plan.trials,
            examples=study.expected_examples,
            seconds_left=lambda: study.seconds_left,
            spent=lambda: spent_of(study.plan.bounds, study.spent),
        )

        def stop() -> None:
            study.interrupt()
            self._storage.interrupt()

        with interruptible(stop), board:
            search(study, assembly.backend, [tracker, board])
        tracker.sync(study.standings)
        log_spent(study.plan.bounds, study.spent, tracker)
        tell_refusal(self._told, study.standings)
        tell_trades(self._told, study.standings, study.plan.space.names)

    def _confirm(
        self,
        assembly: Assembly,
        study: Study,
        baselines: Baselines,
        tried: Sequence[Tried],
        tracker: Tracker,
    ) -> Confirmed:
        if study.best is None:
            raise TrainingError(_no_result(study))
        finals = Finalists(
            study=study,
            yardstick=baselines.yardstick,
            backend=assembly.backend,
            asked=self._config.confirm,
            probe=study.plan.probe,
            folder=assembly.folder,
        )
        asked = self._config.confirm
        again = finalists_of(study.standings, count=asked.top_k)
        if due := finals.untrained(again):
            # The one that is being written beside those that it replaces.
            study.make_room(due + 1)
        tell_confirmation_begin(
            self._told,
            [study.standing(trial) for trial in again],
            seeds=asked.seeds,
            rows=self._confirm_rows(baselines),
            workers=len(study.devices),
            seconds_left=self._seconds_to_confirm(study),
        )
        confirmed = confirm(finals, baselines, tried, guards=self._config.guards)
        study.note("confirmation", asdict(confirmed.confirmation))
        self._others = {run.trial.id: run for run in confirmed.runs}
        log_confirmed(confirmed, tracker)
        tell_confirmation(self._told, confirmed.confirmation, baselines.yardstick.goal)
        return confirmed

    def _seconds_to_confirm(self, study: Study) -> float:
        """Until the budget is used up; infinite where an earlier start has done it."""
        if read_study(self._storage, study.plan.name).confirmation:
            return math.inf
        return seconds_left(study.plan.bounds, study.spent, devices=sum(study.devices), share=1.0)

    def _conclude(
        self, assembly: Assembly, study: Study, confirmed: Confirmed, checked: Audited, tracker: Tracker
    ) -> None:
        config, leader = self._config, study.best
        assert leader is not None
        effects = effects_of(study.standings, study.plan.space, seed=config.seed)
        log_effects(effects, tracker)
        log_trades(study.standings, study.plan.space.names, tracker)
        tell_effects(self._told, effects)
        published = publish(
            best_config(assembly, study, confirmed, checked, tracker.parent_run_id),
            confirmed.winner,
            tracker,
            config.tracking,
            folder=assembly.folder,
            system_prompt=config.data.system_prompt,
        )
        handed = Handed(
            trial=confirmed.confirmation.trial,
            leader=leader.trial.id,
            best=str(published.path),
            adapter=f"{published.adapter.uri} ({published.adapter.alias})" if published.adapter else None,
            look=tracker.ui_command(),
            next=training_command(config.overrides, published.path.stem),
        )
        study.note("handed", asdict(handed))
        study.keep_spent()
        stored = read_study(self._storage, config.experiment)
        report = write_report(stored, effects, assembly.folder)
        tracker.log_file(report)
        tracker.describe(as_markdown(stored, effects))
        self._tell_end(stored, handed, published.notice, report)

    # What is printed

    def _tell_end(self, study: StoredStudy, handed: Handed, notice: str | None, report: Path) -> None:
        registered = f" and {handed.adapter}" if handed.adapter else ""
        self._told.stage("publish", f"{handed.best}{registered}")
        if notice:
            self._told.more(notice)
        tell_comparison(self._told, study)
        self._told.say(f"done in {duration(time.monotonic() - self._begun)}")
        self._told.say(f"spent  {total_of(study.bounds, study.spent)} in all")
        self._told.say(f"report {report}")
        self._told.say(f"look   {handed.look}")
        self._told.say(f"next   {handed.next}")


def _no_result(study: Study) -> str:
    reasons = sorted({f"{s.state}: {s.reason.splitlines()[0]}" for s in study.standings if s.reason})
    name = study.plan.name
    return "\n".join(
        [
            f"None of the {len(study.standings)} trials of study {name!r} came to its end.",
            *(f"  {reason}" for reason in reasons),
            "Mend the cause, then search anew beside it with "
            f"name={name}_2, or go on with more trials (budget.trials, now {study.plan.trials}) and, if time "
            "ran out, more of what did (budget.minutes, budget.gpu_hours, budget.cost), or more room for "
            "checkpoints (budget.disk_gb).",
        ]
    )
