"""The states of a trial on disk: which to go on from, which are needed no more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.engines.checkpoint import remove, verified
from sweep.errors import CheckpointError
from sweep.types import Standing

_logger = logging.getLogger("sweep.search")


def newest(standing: Standing, stopped: Mapping[str, Any] | None, *, most: int) -> tuple[int, str | None]:
    """Examples seen and checkpoint to go on from: the newest that is whole, else the beginning.

    stopped: the state in which a job was cut short, if one was. most: examples that it may have seen.
    """
    kept = {report.examples_seen: report.checkpoint for report in standing.reports}
    if stopped:
        kept[stopped["examples"]] = stopped["checkpoint"]
    for examples, path in sorted(kept.items(), reverse=True):
        if path is None or examples > most:
            continue
        try:
            return examples, str(verified(Path(path)))
        except CheckpointError as error:
            _logger.warning("Trial %s goes on from an earlier state: %s", standing.trial.id, error)
    return 0, None


def drop(standing: Standing, stopped: Mapping[str, Any] | None) -> None:
    """Remove the states of a final trial, all but the one that counts of a complete trial."""
    paths = [Path(report.checkpoint) for report in standing.reports if report.checkpoint]
    kept = paths[-1] if paths and standing.state == "complete" else None
    if stopped and stopped["checkpoint"]:
        paths.append(Path(stopped["checkpoint"]))
    for path in paths:
        if path != kept:
            remove(path)
