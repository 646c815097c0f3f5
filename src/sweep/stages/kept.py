"""What is asked outside the search, each once: jobs' reports and timed replies are kept for another start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweep.engines.checkpoint import remove, whole
from sweep.errors import CheckpointError
from sweep.paths import write_whole
from sweep.search.loop import Jobs
from sweep.search.states import judged_broken
from sweep.types import Backend, Job, Reply, Report, RowLoss, RowProbe


def run_kept(jobs: Sequence[Job], backend: Backend, *, path: Path, key: Sequence[str]) -> dict[str, Report]:
    """The report of each job by its id: from the file where it was reached before, else run now.

    key: what the jobs' results depend on beside the jobs. Each report is written as it comes in. A state that
    is found broken is removed, so that another start trains it again.
    """
    kept, digests = _read(path), {job.id: _digest(job, key) for job in jobs}
    due = {job.id: job for job in _due(jobs, digests, kept)}
    found = {name: _report(kept[digest]) for name, digest in digests.items() if name not in due}
    for event in backend.run(Jobs(due.values())) if due else ():
        if not isinstance(event, Report):
            continue
        found[event.job] = judged_broken(event, due[event.job])
        if event.state == "reached":
            kept[digests[event.job]] = asdict(event)
            write_whole(path, json.dumps(kept))
    return {job.id: found[job.id] for job in jobs if job.id in found}


def missing(jobs: Sequence[Job], *, path: Path, key: Sequence[str]) -> list[Job]:
    """Those that `run_kept` would run."""
    return _due(jobs, {job.id: _digest(job, key) for job in jobs}, _read(path))


def drop_states(jobs: Sequence[Job], *, path: Path, key: Sequence[str]) -> None:
    """Remove the states that these jobs left, and keep their reports: nothing goes on from them."""
    kept = _read(path)
    for digest in {_digest(job, key) for job in jobs} & kept.keys():
        if state := kept[digest]["checkpoint"]:
            remove(state)
            kept[digest]["checkpoint"] = None
    write_whole(path, json.dumps(kept))


def once(replies: Sequence[Reply], *, path: Path, key: Sequence[str]) -> tuple[Reply, ...]:
    """The replies with the times of when they were given first: from the file, else as they are, now kept.

    key: what tells them from others of the same text.
    """
    kept = _read(path)
    digest = _sha256([*key, [reply._replace(seconds=0.0) for reply in replies]])
    if digest not in kept and replies:
        kept[digest] = {"replies": replies}
        write_whole(path, json.dumps(kept))
    return tuple(Reply(*reply) for reply in kept.get(digest, {"replies": ()})["replies"])


def _due(jobs: Sequence[Job], digests: Mapping[str, str], kept: Mapping[str, Any]) -> list[Job]:
    return [job for job in jobs if digests[job.id] not in kept or not _usable(job, kept[digests[job.id]])]


def _digest(job: Job, key: Sequence[str]) -> str:
    told = asdict(job)
    if job.stop == 0:
        # The base model as it is, whatever recipe it would have been trained by.
        told |= {"trial": job.trial.base, "horizon": 0}
    return _sha256([*key, told])


def _sha256(told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _usable(job: Job, kept: dict[str, Any]) -> bool:
    """Whether all prompts were answered, and the state that others go on from is still there and whole."""
    if job.asked and len(kept["replies"]) < len(job.asked.prompts):
        return False
    if job.start == job.stop or kept["checkpoint"] is None:
        return True
    try:
        whole(kept["checkpoint"])
    except CheckpointError:
        return False
    return True


def _report(kept: dict[str, Any]) -> Report:
    return Report(
        **{
            **kept,
            "rows": tuple(RowLoss(*row) for row in kept["rows"]),
            "replies": tuple(Reply(*reply) for reply in kept["replies"]),
            "probed": tuple(RowProbe(*row) for row in kept["probed"]),
        }
    )
