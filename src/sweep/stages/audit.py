"""Whether the data is fit to train on: all checks, kept as a file, and a stop where one must not be passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.data.audit.audit import Audit, audit
from sweep.data.audit.finding import Finding, Row
from sweep.data.split import DataSet
from sweep.engines.model import ModelSource
from sweep.errors import DataError
from sweep.paths import write_whole
from sweep.types import Verdict


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What every check found, and where it is kept. allowed: checks that may fail all the same."""

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...]
    path: Path

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One of each check."""
        return tuple(finding.verdict for finding in self.findings)

    @property
    def stopping(self) -> list[Finding]:
        """Those that no sweep may begin with."""
        return [
            finding
            for finding in self.findings
            if not finding.verdict.passed
            and finding.verdict.severity == "error"
            and finding.verdict.check not in self.allowed
        ]


def audit_data(
    data: DataSet, asked: Audit, model: ModelSource, *, max_tokens: int, seed: int, folder: Path
) -> Audited:
    """The checks of all splits together, from `audit.json` in the folder where the same data was checked before.

    Of the model only the tokenizer is loaded.
    """
    path = folder / "audit.json"
    key = [data.fingerprint, asdict(asked.limits), model.identity, max_tokens, seed]
    findings = _kept(path, key)
    if findings is None:
        rows = [row for split in data.examples.values() for row in split]
        splits = {row.id: name for name, split in data.examples.items() for row in split}
        findings = audit(
            rows, splits, asked.limits, tokenizer=model.tokenizer(), max_tokens=max_tokens, seed=seed
        )
    told = {
        "key": key,
        "allowed": sorted(asked.allow),
        "findings": [
            asdict(finding) | {"rows": [row._asdict() for row in finding.rows]} for finding in findings
        ],
    }
    write_whole(path, json.dumps(told, indent=1))
    return Audited(findings=findings, allowed=asked.allow, path=path)


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
        f"data: the rows are not fit to train on.\n{reasons}\nMend them, or let it pass with "
        f"audit.allow=[{names}], which is kept with the results."
    )


def _kept(path: Path, key: Sequence[object]) -> tuple[Finding, ...] | None:
    """What was found of the same data, model and limits."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        same = told["key"] == json.loads(json.dumps(key))
        return tuple(_finding(kept) for kept in told["findings"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finding(kept: dict[str, Any]) -> Finding:
    verdict, rows = Verdict(**kept["verdict"]), tuple(Row(**row) for row in kept["rows"])
    return Finding(**{**kept, "verdict": verdict, "rows": rows})
