"""What the simpler ways reply, before any trial."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep.data.baselines import Baseline, question
from sweep.data.split import DataSet
from sweep.errors import ConfigError
from sweep.paths import write_whole
from sweep.search.loop import run_jobs
from sweep.types import Asking, Backend, Job, Prompt, Reply, Report, Trial, View

_logger = logging.getLogger("sweep.stages")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file that keeps what a model replied, by baseline, so that the same is asked of it once.

    data: the rows' fingerprint. model: its identity.
    """

    path: Path
    data: str
    model: str

    def read(self, asked: Mapping[str, Asking]) -> dict[str, tuple[Reply, ...]]:
        """The replies of those baselines that the file holds for just these prompts."""
        stored = self._stored()
        return {
            name: tuple(Reply(*reply) for reply in stored[name]["replies"])
            for name, asking in asked.items()
            if name in stored and stored[name]["key"] == self._key(asking)
        }

    def write(self, asked: Mapping[str, Asking], replies: Mapping[str, tuple[Reply, ...]]) -> None:
        """Keep these replies beside those that other baselines have in the file."""
        new = {name: {"key": self._key(asked[name]), "replies": given} for name, given in replies.items()}
        write_whole(self.path, json.dumps({**self._stored(), **new}))

    def _stored(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text("utf-8"))) if self.path.is_file() else {}

    def _key(self, asking: Asking) -> str:
        content = json.dumps([self.data, self.model, asking])
        return hashlib.sha256(content.encode()).hexdigest()


def ask_baselines(
    baselines: Mapping[str, Baseline],
    data: DataSet,
    view: View,
    backend: Backend,
    *,
    base: Trial,
    max_tokens: int,
    path: Path,
) -> dict[str, tuple[Reply, ...]]:
    """Each baseline's replies to the rows of the view, one for each row, in their order.

    base: the model to ask, untrained, and the seed. max_tokens: of a reply. path: the file that keeps what
    the model replied; another start asks it only for what has changed. A baseline is left out, with a
    warning, where the engine gives no replies. Raises ConfigError for one that answers other rows than asked.
    """
    asked = tuple(question(row) for row in data.examples[view.split][: view.rows])
    answers = {
        name: _answers(name, baseline, asked, data, seed=base.seed) for name, baseline in baselines.items()
    }
    prompts = {
        name: Asking(tuple(answer for answer in given if isinstance(answer, Prompt)), max_tokens)
        for name, given in answers.items()
    }
    asking = {name: wanted for name, wanted in prompts.items() if wanted.prompts}
    record = Record(path=path, data=data.fingerprint, model=base.base)
    replied = record.read(asking)
    if new := {name: wanted for name, wanted in asking.items() if name not in replied}:
        jobs = [_job(name, wanted, view, base) for name, wanted in new.items()]
        reports = run_jobs(jobs, backend)
        given = {
            name: report.replies
            for (name, wanted), job in zip(new.items(), jobs, strict=True)
            if _whole(name, wanted, report := reports[job.id])
        }
        record.write(new, given)
        replied |= given
    return {
        name: _in_order(given, replied.get(name, ()))
        for name, given in answers.items()
        if name in replied or name not in asking
    }


def _answers(
    name: str, baseline: Baseline, asked: Sequence[Prompt], data: DataSet, *, seed: int
) -> tuple[Prompt | Reply, ...]:
    answers = baseline.answers(asked, data.examples["train"], seed=seed)
    if [answer.row for answer in answers] != [prompt.row for prompt in asked]:
        raise ConfigError(
            f"baseline.{name}: {type(baseline).__name__} gave {len(answers)} answers to {len(asked)} rows; "
            "there must be one for each, in the order asked. Mend the class, or drop it from baseline=[...]."
        )
    return answers


def _job(name: str, asking: Asking, view: View, base: Trial) -> Job:
    return Job(
        id=f"baseline/{name}",
        attempt=0,
        trial=replace(base, id=f"baseline/{name}", number=None),
        start=0,
        stop=0,
        horizon=base.recipe.batch_size,
        checkpoint=None,
        train=View("train"),
        # Only the replies count; a job has to be scored on something.
        evaluation=View(view.split, 1),
        asked=asking,
    )


def _whole(name: str, asking: Asking, report: Report) -> bool:
    """Whether each prompt has its reply; a warning where not."""
    if [reply.row for reply in report.replies] == [prompt.row for prompt in asking.prompts]:
        return True
    reason = report.error or f"the engine gave {len(report.replies)} replies to {len(asking.prompts)} prompts"
    _logger.warning("baseline.%s is left out: %s", name, reason)
    return False


def _in_order(answers: Sequence[Prompt | Reply], replied: Sequence[Reply]) -> tuple[Reply, ...]:
    """The answers, each prompt replaced by the model's reply to it."""
    by_row = {reply.row: reply for reply in replied}
    return tuple(answer if isinstance(answer, Reply) else by_row[answer.row] for answer in answers)
