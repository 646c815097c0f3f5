"""Whether the data is fit to train on: all checks, kept as a file, and a stop where one must not be passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sweep.data.audit.audit import Audit, audit
from sweep.data.audit.finding import Finding
from sweep.data.split import DataSet
from sweep.errors import DataError
from sweep.paths import write_whole


def audit_data(data: DataSet, asked: Audit, *, seed: int, path: Path) -> tuple[Finding, ...]:
    """What every check found of all splits together, written to `path` as well."""
    rows = [row for split in data.examples.values() for row in split]
    splits = {row.id: name for name, split in data.examples.items() for row in split}
    findings = audit(rows, splits, asked.limits, seed=seed)
    told = {
        "data": data.fingerprint,
        "allowed": sorted(asked.allow),
        "findings": [asdict(finding) for finding in findings],
    }
    write_whole(path, json.dumps(told, indent=1))
    return findings


def stopping(findings: Sequence[Finding], asked: Audit) -> list[Finding]:
    """Those that no sweep may begin with."""
    return [
        finding
        for finding in findings
        if not finding.verdict.passed
        and finding.verdict.severity == "error"
        and finding.verdict.check not in asked.allow
    ]


def require_fit(findings: Sequence[Finding], asked: Audit) -> None:
    """Raise DataError that names what stops the sweep, if anything does."""
    bad = stopping(findings, asked)
    if not bad:
        return
    names = ",".join([*asked.allow, *(finding.verdict.check for finding in bad)])
    reasons = "\n".join(
        f"  {finding.verdict.check}: {finding.verdict.message} (limit {finding.verdict.limit:g}). {finding.mend}"
        for finding in bad
    )
    raise DataError(
        f"data: the rows are not fit to train on:\n{reasons}\nMend them, or let it pass with "
        f"audit.allow=[{names}], which is kept with the results."
    )
