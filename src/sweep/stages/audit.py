"""Whether the data is fit to train on: all checks, kept as a file, and a stop where one stops a sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sweep.data.audit.audit import Audit, audit
from sweep.data.audit.finding import Audited, audited_of
from sweep.data.split import DataSet
from sweep.engines.model import ModelSource
from sweep.errors import DataError
from sweep.paths import write_whole
from sweep.tracking.mlflow import Tracker

FILE = "audit.json"


def audit_data(
    data: DataSet, asked: Audit, model: ModelSource, *, max_tokens: int, seed: int, folder: Path
) -> Audited:
    """The checks of all splits together; from the folder's file where the same was checked before.

    Of the model only the tokenizer is loaded.
    """
    path = folder / FILE
    key = [data.fingerprint, asdict(asked.limits), model.identity, max_tokens, seed]
    audited = _kept(path, key)
    if audited is None:
        rows = [row for split in data.examples.values() for row in split]
        splits = {row.id: name for name, split in data.examples.items() for row in split}
        tokenizer = model.tokenizer()
        found = audit(rows, splits, asked.limits, tokenizer=tokenizer, max_tokens=max_tokens, seed=seed)
        audited = Audited(findings=found, allowed=())
    audited = replace(audited, allowed=asked.allow)
    write_whole(path, json.dumps({"key": key, **audited.as_json()}, indent=1))
    return audited


def require_fit(audited: Audited) -> None:
    """Raise DataError that names what stops the sweep, if anything does."""
    bad = audited.stopping
    if not bad:
        return
    names = ",".join([*audited.allowed, *(finding.verdict.check for finding in bad)])
    reasons = "\n".join(
        f"  {finding.verdict.check}: {finding.verdict.message}; must be {finding.bound}. {finding.mend}"
        for finding in bad
    )
    raise DataError(
        f"data: the rows are not fit to train on.\n{reasons}\nMend them: python -m sweep.audit with the same "
        f"arguments shows which. Or let it pass with audit.allow=[{names}], which is kept with the results."
    )


def log_audit(audited: Audited, tracker: Tracker, folder: Path) -> None:
    """Every check's value as a metric of the sweep's run, all findings as an artifact."""
    tracker.log_metrics({f"audit/{verdict.check}": verdict.value for verdict in audited.verdicts})
    tracker.log_file(folder / FILE)


def _kept(path: Path, key: Sequence[object]) -> Audited | None:
    """What was found of the same data, model and limits."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return audited_of(told) if told["key"] == json.loads(json.dumps(key)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
