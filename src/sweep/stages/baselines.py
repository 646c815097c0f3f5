"""What the simpler ways are worth, before any trial."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.data.baselines import Baseline
from sweep.errors import ConfigError
from sweep.evaluation.objective import succeeds
from sweep.evaluation.selection import badness
from sweep.stages.kept import once, run_kept
from sweep.stages.yardstick import Measured, Yardstick, as_metrics
from sweep.tracking.mlflow import Tracker
from sweep.types import Asking, Backend, Job, Prompt, Reply, Report, Trial, Verdict, View

UNTRAINED = "untrained"

_logger = logging.getLogger("sweep.stages")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A baseline on the rows of a view. verdicts: of the goal's limits."""

    name: str
    description: str
    measured: Measured
    verdicts: tuple[Verdict, ...]

    @property
    def succeeds(self) -> bool:
        """Whether it meets the goal by itself."""
        return succeeds(self.verdicts)


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The simpler ways, asked through the backend. base: the model, untrained, and the seed.

    path: a file that keeps all replies, so that another start asks the model only for what has changed, and
    times no copied reply again.
    """

    ways: Mapping[str, Baseline]
    yardstick: Yardstick
    backend: Backend
    base: Trial
    path: Path

    def tried(self, view: View, names: Sequence[str] | None = None) -> tuple[Tried, ...]:
        """Each way on the rows of the view, or only those of these names, best first.

        Where the objective needs no replies, that is the base model's own loss. One that the engine gives
        no replies or no loss for is left out, with a warning.
        """
        if self.yardstick.judge is None:
            found = self._untrained(view)
        else:
            replies = self._replies(view, list(self.ways if names is None else names))
            found = {
                name: self.yardstick.of_replies(view, given, trained=False) for name, given in replies.items()
            }
        better = self.yardstick.better
        return tuple(
            Tried(
                name=name,
                description=self._description(name),
                measured=measured,
                verdicts=self.yardstick.objective.verdicts(measured.score),
            )
            for name, measured in sorted(found.items(), key=lambda item: badness(item[1].score.value, better))
        )

    def _description(self, name: str) -> str:
        return "the base model as it is" if name == UNTRAINED else self.ways[name].description

    def _untrained(self, view: View) -> dict[str, Measured]:
        job = self._job(UNTRAINED, view, None)
        report = self._reports([job])[job.id]
        if report.state != "reached":
            _tell_left_out(job, report.error)
            return {}
        return {UNTRAINED: self.yardstick.of_report(view, report)}

    def _replies(self, view: View, names: Sequence[str]) -> dict[str, tuple[Reply, ...]]:
        """By way, one for each row of the view, in their order."""
        asking = self.yardstick.asking(view)
        assert asking is not None
        answers = {name: self._timed_once(name, self._answers(name, asking.prompts)) for name in names}
        prompts = {
            name: Asking(tuple(one for one in given if isinstance(one, Prompt)), asking.max_tokens)
            for name, given in answers.items()
        }
        # Scored on one row: only the replies count.
        one = View(view.split, 1)
        jobs = [self._job(name, one, wanted) for name, wanted in prompts.items() if wanted.prompts]
        reports = self._reports(jobs)
        left_out = [job for job in jobs if job.asked and not _whole(job, job.asked, reports[job.id])]
        gone = {job.id for job in left_out}
        replied = {
            name: reports[f"baseline/{name}"].replies if prompts[name].prompts else () for name in names
        }
        return {
            name: _in_order(given, replied[name])
            for name, given in answers.items()
            if f"baseline/{name}" not in gone
        }

    def _answers(self, name: str, asked: Sequence[Prompt]) -> tuple[Prompt | Reply, ...]:
        train = self.yardstick.data.examples["train"]
        answers = self.ways[name].answers(asked, train, seed=self.base.seed)
        if [answer.row for answer in answers] != [prompt.row for prompt in asked]:
            raise ConfigError(
                f"baseline.{name}: {type(self.ways[name]).__name__} gave {len(answers)} answers to "
                f"{len(asked)} rows; there must be one for each, in the order asked. Mend the class, or drop "
                "it from baseline=[...]."
            )
        return answers

    def _timed_once(self, name: str, answers: Sequence[Prompt | Reply]) -> tuple[Prompt | Reply, ...]:
        """The answers, finished replies among them as slow as when they were given first."""
        replies = [answer for answer in answers if isinstance(answer, Reply)]
        first = iter(once(replies, path=self.path, key=[*self._key, name]))
        return tuple(next(first) if isinstance(answer, Reply) else answer for answer in answers)

    def _reports(self, jobs: Sequence[Job]) -> dict[str, Report]:
        return run_kept(jobs, self.backend, path=self.path, key=self._key)

    @property
    def _key(self) -> list[str]:
        return [self.yardstick.data.fingerprint]

    def _job(self, name: str, view: View, asked: Asking | None) -> Job:
        return Job(
            id=f"baseline/{name}",
            attempt=0,
            trial=replace(self.base, id=f"baseline/{name}", number=None),
            start=0,
            stop=0,
            horizon=self.base.recipe.batch_size,
            checkpoint=None,
            train=View("train"),
            evaluation=view,
            asked=asked,
        )


def log_baselines(tried: Sequence[Tried], tracker: Tracker) -> None:
    """Each as a run beside the trials'."""
    for one in tried:
        tracker.log_beside(f"baseline/{one.name}", one.description, as_metrics(one.measured.score))


def _whole(job: Job, asking: Asking, report: Report) -> bool:
    """Whether each prompt has its reply; a warning where not."""
    if [reply.row for reply in report.replies] == [prompt.row for prompt in asking.prompts]:
        return True
    given = f"the engine gave {len(report.replies)} replies to {len(asking.prompts)} prompts"
    _tell_left_out(job, report.error or given)
    return False


def _tell_left_out(job: Job, reason: str | None) -> None:
    _logger.warning("%s is left out: %s", job.id.replace("/", "."), reason)


def _in_order(answers: Sequence[Prompt | Reply], replied: Sequence[Reply]) -> tuple[Reply, ...]:
    """The answers, each prompt replaced by the model's reply to it."""
    by_row = {reply.row: reply for reply in replied}
    return tuple(answer if isinstance(answer, Reply) else by_row[answer.row] for answer in answers)
