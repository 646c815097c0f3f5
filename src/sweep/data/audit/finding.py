"""What one check of the data found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from sweep.data.example import Example
from sweep.types import Limit, Verdict

SHOWN = 5
_LONGEST = 160


class Row(NamedTuple):
    """A row as a person is shown it."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict, its limit in words, the rows that show it, how many there are, and what mends it."""

    verdict: Verdict
    bound: str
    rows: tuple[Row, ...]
    count: int
    mend: str


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What every check found. allowed: checks that may fail all the same, by name."""

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...]

    @property
    def failed(self) -> list[Finding]:
        """Those that warn or stop."""
        return [finding for finding in self.findings if not finding.verdict.passed]

    @property
    def stopping(self) -> list[Finding]:
        """Those that no sweep may begin with."""
        return [finding for finding in self.failed if self.word(finding) == "error"]

    @property
    def failed_by_word(self) -> dict[str, list[str]]:
        """The checks that warn or stop, by how they ended."""
        checks: dict[str, list[str]] = {}
        for finding in self.failed:
            checks.setdefault(self.word(finding), []).append(finding.verdict.check)
        return checks

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One of each check."""
        return tuple(finding.verdict for finding in self.findings)

    def word(self, finding: Finding) -> Literal["ok", "warning", "allowed", "error"]:
        """How it ended, for people."""
        if finding.verdict.passed:
            return "ok"
        if finding.verdict.severity == "warn":
            return "warning"
        return "allowed" if finding.verdict.check in self.allowed else "error"

    def as_json(self) -> dict[str, Any]:
        """For a file or a note; `audited_of` reads it again."""
        findings = [
            asdict(finding) | {"rows": [row._asdict() for row in finding.rows]} for finding in self.findings
        ]
        return {"findings": findings, "allowed": self.allowed}


def audited_of(kept: Mapping[str, Any]) -> Audited:
    """What `as_json` gave. Raises TypeError or KeyError where it is something else."""
    return Audited(
        findings=tuple(_finding(finding) for finding in kept["findings"]), allowed=tuple(kept["allowed"])
    )


def _finding(kept: Mapping[str, Any]) -> Finding:
    verdict, rows = Verdict(**kept["verdict"]), tuple(Row(**row) for row in kept["rows"])
    return Finding(**{**kept, "verdict": verdict, "rows": rows})


def judge(
    check: str,
    value: float,
    limit: Limit,
    *,
    worse: Literal["above", "below"],
    unit: Literal["share", "number"] = "share",
    message: str,
    mend: str,
    rows: Sequence[Row] = (),
) -> Finding:
    """The finding of a measured value; rows and mend are shown only where it does not pass."""

    def beyond(bound: float | None) -> bool:
        return bound is not None and (value > bound if worse == "above" else value < bound)

    severity: Literal["warn", "error"] = "error" if beyond(limit.error) else "warn"
    passed = not (beyond(limit.error) or beyond(limit.warn))
    bound = limit.error if limit.error is not None and severity == "error" else limit.warn
    verdict = Verdict(
        check=check,
        passed=passed,
        severity=severity,
        value=float(value),
        limit=float(bound),
        message=message,
    )
    told = f"{bound:.0%}" if unit == "share" else f"{bound:,g}"
    return Finding(
        verdict=verdict,
        bound=f"at most {told}" if worse == "above" else f"at least {told}",
        rows=() if passed else tuple(rows[:SHOWN]),
        count=0 if passed else len(rows),
        mend="" if passed else mend,
    )


def prompts_of(examples: Iterable[Example]) -> list[Row]:
    """Rows by what was asked."""
    return [Row(example.id, shortened(example.prompt)) for example in examples]


def answers_of(examples: Iterable[Example]) -> list[Row]:
    """Rows by what was answered."""
    return [Row(example.id, shortened(example.response)) for example in examples]


def shortened(text: str) -> str:
    """On one line, no longer than is shown."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
