"""The story of a sweep for the description of its run."""

from __future__ import annotations

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
    lines = [f"**{verdict.headline}** {' '.join([verdict.text, *measured])}"]
    if refusal := refusal_of(study.standings):
        lines += ["", refusal]
    if notes.goal is not None:
        lines = [*_goal(notes.goal.words, goal_sentences(notes.goal)[0]), "", *lines]
    if notes.audit is not None:
        lines += ["", data_sentence(notes.audit)]
    if notes.baselines:
        lines += ["", *_baselines(study)]
    if told := trade_sentences(study.standings, confirmation):
        lines += ["", " ".join(told)]
    lines += ["", "Next:", "", *(f"- {step}" for step in steps_of(study))]
    lines += ["", "What matters:", "", *(f"- {point}" for point in points_of(study, effects))]
    if (rows := comparison_of(study)) and study.winner:
        lines += ["", f"| | best (trial {study.winner.trial.id}) | defaults (trial 0) |", "|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"Spent: {total_of(study.bounds, study.spent)}."]
    return "\n".join([*lines, "", "The whole report: `report.html` among the artifacts."])


def _goal(words: str | None, limits: str) -> list[str]:
    # A line break would end the quotation.
    return [limits] if words is None else [f"> {' '.join(words.split())}", "", limits]


def _baselines(study: StoredStudy) -> list[str]:
    headings, rows = baselines_of(study)
    kept = [at for at, heading in enumerate(headings) if heading in _FEW or at == 1]
    return [
        f"| {' | '.join(headings[at] for at in kept)} |",
        f"|{'|'.join('---' for _ in kept)}|",
        *(f"| {' | '.join(row[at] for at in kept)} |" for row in rows),
    ]
