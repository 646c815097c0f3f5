"""The story of a sweep for the description of its run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sweep.analysis.effects import Effects
from sweep.reporting.spending import total_of
from sweep.reporting.steps import steps_of
from sweep.reporting.story import baselines_of, data_sentence, goal_sentences
from sweep.reporting.summary import comparison_of, measured_of, points_of, refusal_of, verdict_of
from sweep.reporting.trades import trade_sentences
from sweep.search.stored import StoredStudy

# Columns of the simpler ways; the report holds the others.
_FEW = ("way", "meets the goal")


def as_markdown(study: StoredStudy, effects: Effects) -> str:
    """Goal, decision, data, simpler ways, what to do next, what matters, best against defaults, the cost."""
    verdict, notes, confirmation = verdict_of(study), study.notes, study.confirmation
    measured = measured_of(confirmation, notes.goal) if confirmation else []
    lines = [f"**{_plain(verdict.headline)}** {_plain(' '.join([verdict.text, *measured]))}"]
    if refusal := refusal_of(study.standings):
        lines += ["", _plain(refusal)]
    if notes.goal is not None:
        lines = [*_goal(notes.goal.words, goal_sentences(notes.goal)[0]), "", *lines]
    if notes.audit is not None:
        lines += ["", _plain(data_sentence(notes.audit))]
    if notes.baselines:
        lines += ["", *_baselines(study)]
    if told := trade_sentences(study.standings, confirmation):
        lines += ["", _plain(" ".join(told))]
    lines += ["", "Next:", "", *(f"- {_plain(step)}" for step in steps_of(study))]
    lines += ["", "What matters:", "", *(f"- {_plain(point)}" for point in points_of(study, effects))]
    if (rows := comparison_of(study)) and study.winner:
        headings = ["", f"best (trial {study.winner.trial.id})", "defaults (trial 0)"]
        lines += ["", _row(headings), "|---|---:|---:|", *map(_row, rows)]
    lines += ["", f"Spent: {_plain(total_of(study.bounds, study.spent))}."]
    return "\n".join([*lines, "", "The whole report: `report.html` among the artifacts."])


def _goal(words: str | None, limits: str) -> list[str]:
    limits = _plain(limits)
    return [limits] if words is None else [f"> {_plain(words)}", "", limits]


def _baselines(study: StoredStudy) -> list[str]:
    headings, rows = baselines_of(study)
    kept = [at for at, heading in enumerate(headings) if heading in _FEW or at == 1]
    return [
        _row([headings[at] for at in kept]),
        f"|{'|'.join('---' for _ in kept)}|",
        *(_row([row[at] for at in kept]) for row in rows),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """On one line, with nothing that Markdown takes for tags, links, code or cells: data may be in it."""
    return re.sub(r"([\\<\[`|])", r"\\\1", " ".join(text.split()))
