"""The lines that a command prints beside its tables."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweep.analysis.effects import Effects
from sweep.data.audit.finding import Audited
from sweep.evaluation.confirmation import Confirmation, Simpler
from sweep.evaluation.goal import Goal
from sweep.evaluation.objective import Objective
from sweep.redaction import printable
from sweep.reporting.live import (
    duration,
    examples_left,
    leading,
    named,
    progress_of,
    standings_table,
)
from sweep.reporting.spending import left_of, total_of
from sweep.reporting.story import goal_sentences
from sweep.reporting.summary import comparison_of, failure_of, measured_of, refusal_of, scored, word_of
from sweep.reporting.trades import front_headings, front_rows, trade_sentences
from sweep.search.allowance import seconds_left
from sweep.search.standings import Standings
from sweep.search.stored import StoredStudy
from sweep.types import Score, Standing

_INDENT = 9
_WIDE = 160
_COLOURS = {"ok": "green", "warning": "yellow", "allowed": "yellow", "error": "red"}


class Transcript:
    """One line per stage, indented lines below it. Texts are printed as they are: no markup, no wrapping."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            # A file has no edge: without a terminal's width tables would lose digits.
            self.console.width = max(self.console.width, _WIDE)

    def title(self, command: str, subject: str) -> None:
        self.console.print(f"[bold]{command}[/bold]  ", end="")
        self.say(subject)

    def stage(self, name: str, text: str) -> None:
        self.console.print(f"[bold cyan]{name:<{_INDENT}}[/bold cyan]", end="")
        self.say(text)

    def more(self, text: str) -> None:
        self.say(" " * _INDENT + text)

    def say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)


def tell_audit(told: Transcript, audited: Audited) -> None:
    """How many checks the data passed, and a line for each that it did not."""
    passed = len(audited.findings) - len(audited.failed)
    told.stage("audit", f"{passed} of {len(audited.findings)} checks of the data passed")
    for finding in audited.failed:
        told.more(
            f"{audited.word(finding)}: {finding.verdict.message} ({finding.verdict.check}, {finding.bound})"
        )


def tell_findings(told: Transcript, audited: Audited) -> None:
    """A line per check, then what is wrong, which rows show it and what mends it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in audited.findings:
        word, verdict = audited.word(finding), finding.verdict
        coloured = f"[{_COLOURS[word]}]{word}[/]"
        table.add_row(verdict.check, coloured, _cell(verdict.message), f"[dim]{finding.bound}[/]")
    told.console.print(table)
    for finding in audited.failed:
        told.say(f"\n{finding.verdict.check}: {finding.mend}")
        for row in finding.rows:
            told.more(f"{row.id}  {row.text}")
        if finding.count > len(finding.rows):
            told.more(f"and {finding.count - len(finding.rows):,} more")


def _cell(text: str) -> str:
    """The text itself, in a table that reads markup."""
    return escape(printable(text))


def tell_goal(told: Transcript, goal: Goal) -> None:
    """What models are judged by, and from where on one is worth having."""
    first, *_ = goal_sentences(goal)
    told.stage("goal", goal.words or first)
    if goal.words:
        told.more(first)


def tell_baselines_begin(told: Transcript, objective: Objective[Any], rows: int) -> None:
    """What is measured of the simpler ways, before that takes its time."""
    told.stage("baseline", f"{objective.name} in {objective.unit} without training, on {rows} confirm rows")


def tell_baselines(told: Transcript, simpler: Sequence[Simpler], objective: Objective[Any]) -> None:
    """What the simpler ways are worth, and whether one of them is enough."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in simpler:
        name, what = " " * _INDENT + _cell(one.name), _cell(one.description.partition(";")[0])
        table.add_row(name, scored(one.confirm), _shares(one.confirm), f"[dim]{what}[/]")
    told.console.print(table)
    if good := [one.name for one in simpler if one.succeeds]:
        told.more(f"{good[0]} meets the goal already: ask whether it would do before you train")
    elif objective.verdicts(simpler[0].confirm) if simpler else ():
        told.more("none of them meets the goal")


def _shares(score: Score) -> str:
    """Of resolved, escalated and wrong, where there are such."""
    told = [
        f"{score.metrics[name]:.0%} {name}"
        for name in ("resolved", "escalated", "wrong")
        if name in score.metrics
    ]
    return ", ".join(told)


def tell_trades(told: Transcript, standings: Sequence[Standing], names: Sequence[str]) -> None:
    """The trials that no other beats in every aim, and the knee. Nothing where the search has one aim."""
    if not (rows := front_rows(standings, names)):
        return
    told.stage("front", " ".join(trade_sentences(standings, None)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in front_headings(standings, names):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for row in rows:
        table.add_row(*row, style="bold green" if row is rows[0] else None)
    told.console.print(table)


def tell_refusal(told: Transcript, standings: Sequence[Standing]) -> None:
    """Whom guards keep from winning. Nothing where the lowest loss wins."""
    if refusal := refusal_of(standings):
        told.stage("guards", refusal)


def tell_confirmation_begin(
    told: Transcript,
    finalists: Sequence[Standing],
    *,
    seeds: int,
    rows: int,
    workers: int = 1,
    seconds_left: float = math.inf,
) -> None:
    """Who is trained again, and about how long that takes, by what such a training took in the search.

    seconds_left: of the budget; it is said where that is less.
    """
    # A cross-validation trains on each row in all folds but one.
    times = [sum(report.seconds for report in one.reports) / ((one.folds or 2) - 1) for one in finalists]
    trials = [one.trial.id for one in finalists if one.trial.number != 0]
    seconds = max(times) * math.ceil(len(times) * seeds / workers)
    beyond = f", more than the {duration(max(seconds_left, 0))} that the budget leaves"
    besides = f" and trial {' and trial '.join(trials)}" if trials else ""
    told.stage(
        "confirm",
        f"the defaults{besides} are trained again, each with {seeds} fresh seeds, and judged on {rows} rows "
        f"that the search never saw; about {duration(seconds)}{beyond if seconds > seconds_left else ''}",
    )


def tell_confirmation(told: Transcript, confirmation: Confirmation, goal: Goal | None) -> None:
    """The finalists, the winner against its rivals on test rows, what that means, and what fails."""
    best = confirmation.winner
    told.more(f"Trial {best.trial} is best with {scored(best.confirm)} {confirmation.unit}.")
    for sentence in measured_of(confirmation, goal):
        told.more(sentence)
    for verdict in confirmation.verdicts:
        if not verdict.passed:
            told.more(f"{word_of(verdict)}: {verdict.message} ({failure_of(verdict)})")
    for one in confirmation.slices:
        if one.worse:
            told.more(f"worse for {one.column} {one.value}: {one.difference.value:+.3f} {confirmation.unit}")
    told.stage("verdict", f"{confirmation.judgement.outcome}: {confirmation.judgement.verdict.message}")


def tell_effects(told: Transcript, effects: Effects) -> None:
    """What can be said of the parameters."""
    first, *others = effects.readings
    told.stage("analyse", first)
    for reading in others:
        told.more(reading)


def tell_comparison(told: Transcript, study: StoredStudy) -> None:
    """The best trial beside the defaults. Nothing where none is complete."""
    if study.winner is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column(f"best (trial {study.winner.trial.id})", justify="right", style="green")
    table.add_column("defaults (trial 0)", justify="right")
    for row in comparison_of(study):
        table.add_row(*row)
    told.console.print()
    told.console.print(table)
    told.console.print()


def tell_status(told: Transcript, study: StoredStudy, *, driver: str | None) -> None:
    """Who drives the study, where its trials stand, what is spent and left. driver: None if none lives."""
    told.title("status", study.name)
    told.stage("driver", driver or _at_rest(study))
    standings = Standings(study.standings)
    states = ", ".join(f"{count} {state}" for state, count in standings.states.most_common())
    told.stage(
        "search", f"{len(standings)} of {study.trials} trials begun" + (f": {states}" if states else "")
    )
    if best := standings.ahead:
        so_far = "" if study.over else " so far"
        told.more(f"{leading(best, when=so_far)} ({named(best)}) {progress_of(best)}")
    told.stage("time", f"{duration(study.seconds_spent)} of search spent{_outlook(study, driver)}")
    left = f"; left: {left_of(study.bounds, study.spent)}" if study.bounds else ""
    told.stage("spent", f"{total_of(study.bounds, study.spent)}{left}")
    if standings:
        told.console.print()
        told.console.print(standings_table(standings, study.names, {}))
        told.console.print()
    tell_trades(told, study.standings, study.names)
    if study.confirmation:
        tell_confirmation(told, study.confirmation, study.notes.goal)
        tell_comparison(told, study)


def _at_rest(study: StoredStudy) -> str:
    if study.over:
        return "none: the sweep is done"
    again = study.notes.asked.command if study.notes.asked else "the sweep's command"
    return f"none on this machine; go on with: {again}"


def _outlook(study: StoredStudy, driver: str | None) -> str:
    """The time left at the rate so far, and the age of the newest report; nothing at rest."""
    trained = sum(standing.reached for standing in study.standings)
    if not driver or not trained:
        return ""
    rest = examples_left(len(study.standings), trained, trials=study.trials, examples=study.examples)
    left = rest * study.seconds_spent / trained
    left = min(left, max(seconds_left(study.bounds, study.spent, devices=study.devices), 0))
    newest = max(report.ended_ms for standing in study.standings for report in standing.reports)
    return f", about {duration(left)} left; last report {duration(time.time() - newest / 1000)} ago"
