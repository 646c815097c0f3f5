"""What a sweep found, in a few sentences and a table: for the terminal, the report and the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sweep.analysis.axes import sentence, title
from sweep.analysis.effects import Effects
from sweep.analysis.front import winner_of
from sweep.evaluation.compare import Difference
from sweep.evaluation.confirmation import Confirmation
from sweep.evaluation.goal import Goal
from sweep.evaluation.objective import TAKEN
from sweep.reporting.live import failing, parameters_of
from sweep.search.stored import StoredStudy
from sweep.types import Score, Standing
from sweep.types import Verdict as Check

# What a score is made of, for whoever looks at the run; too much beside it.
_DETAILS = TAKEN - {"resolved", "escalated", "wrong", "p95_seconds"}


class Verdict(NamedTuple):
    """The first thing read. tone: good, plain or open."""

    tone: str
    headline: str
    text: str


def verdict_of(study: StoredStudy) -> Verdict:
    """What to do with the winner and why; before confirmation, how far the search is."""
    confirmation, best = study.confirmation, study.best
    if best is None:
        return Verdict("open", "No trial has come to its end yet.", _progress(study))
    if best.broken:
        headline = f"No trial may win: even trial {best.trial.id} {failing(best)}."
        return Verdict("plain", headline, _guards(best))
    if confirmation is None:
        what = "as the knee of several aims" if best.aims else f"with a validation loss of {best.loss:.3f}"
        leads = f"Trial {best.trial.id} leads {what}"
        return Verdict("open", f"{leads}, not confirmed yet.", _progress(study))
    trial = f"trial {confirmation.trial}"
    headline = {
        "ship": f"Ship {trial}.",
        "use_baseline": f"Don't train: {_rival(confirmation, study.notes.goal)}.",
        "no_evidence": f"No evidence that {trial} is worth shipping.",
    }[confirmation.judgement.outcome]
    tone = "good" if confirmation.judgement.outcome == "ship" else "plain"
    return Verdict(tone, headline, f"{sentence(confirmation.judgement.verdict.message)}.")


def measured_of(confirmation: Confirmation, goal: Goal | None) -> list[str]:
    """Sentences: what the winner is worth on test rows, and by how much that is more than its rivals."""
    test = confirmation.winner.test
    if test is None:
        return []
    told = [
        f"On {test.examples} test rows the {confirmation.objective} of trial {confirmation.trial} is "
        f"{test.value:.3f} {confirmation.unit}, the mean of {confirmation.seeds} fresh seeds."
    ]
    for comparison in confirmation.judgement.comparisons:
        difference = comparison.difference
        told.append(
            f"Against {comparison.rival}: {difference.value:+.3f} "
            f"(95%: {difference.low:+.3f} to {difference.high:+.3f}){_monthly(difference, goal)}."
        )
    return [*told, *caveats_of(confirmation, goal)]


def refusal_of(standings: Sequence[Standing]) -> str | None:
    """A sentence on the trial that would lead if nothing guarded it; None where that is the one that does."""
    leader = winner_of(standings)
    complete = [one for one in standings if one.state == "complete"]
    if leader is None or leader.aims or leader.broken:
        return None
    first = min(complete, key=lambda one: one.loss)
    if not first.broken:
        return None
    return (
        f"Trial {first.trial.id} has a lower loss, {first.loss:.4f} against {leader.loss:.4f}, and may not "
        f"win: {_guards(first)}"
    )


def caveats_of(confirmation: Confirmation, goal: Goal | None) -> list[str]:
    """Sentences that temper what was measured."""
    told = []
    if confirmation.as_good:
        told.append(
            f"On confirm rows trial {' and trial '.join(confirmation.as_good)} did as well by this measure; "
            f"trial {confirmation.trial} was chosen for its lower loss."
        )
    elif confirmation.trial == "0":
        told.append("No finalist was better than the recipe's own values, which are trial 0.")
    limits = {name.rpartition("_")[0] for name in goal.limits} if goal else set()
    missed = [
        title(one.check)
        for one in confirmation.verdicts
        if one.check in limits and not one.passed and not math.isnan(one.value)
    ]
    if missed:
        told.append(f"Trial {confirmation.trial} misses the goal: {', '.join(missed)}.")
    if confirmation.opened > 1:
        others = f", by {' and '.join(confirmation.opened_by)} too" if confirmation.opened_by else ""
        told.append(
            f"The test rows were opened {confirmation.opened} times{others}, so the intervals are somewhat "
            "too good."
        )
    return told


def _monthly(difference: Difference, goal: Goal | None) -> str:
    if goal is None or goal.monthly_tickets is None:
        return ""
    value, low, high = (
        f"{amount * goal.monthly_tickets:+,.0f}"
        for amount in (difference.value, difference.low, difference.high)
    )
    return f", {value} {goal.currency} a month ({low} to {high})"


def _rival(confirmation: Confirmation, goal: Goal | None) -> str:
    baseline = confirmation.baseline
    name = title(baseline.name) if baseline else "a baseline"
    missed = baseline and not baseline.succeeds and goal and goal.limits
    return f"{name} is no worse, though it misses the goal" if missed else f"{name} will do"


def _guards(best: Standing) -> str:
    failed = [verdict.message for verdict in best.verdicts if verdict.check in best.broken]
    return " ".join(f"{sentence(message)}." for message in failed)


def _progress(study: StoredStudy) -> str:
    ended = sum(standing.ended for standing in study.standings)
    return (
        f"{ended} of {study.trials} trials have ended. If the sweep is not running, its command goes on "
        "where it stopped."
    )


def points_of(study: StoredStudy, effects: Effects) -> list[str]:
    """Sentences on what matters and where training starts from."""
    points = list(effects.readings)
    if study.notes.base_loss is not None:
        points.append(f"Before any training the model's validation loss is {study.notes.base_loss:.3f}.")
    return points


def comparison_of(study: StoredStudy) -> list[tuple[str, str, str]]:
    """What is compared, the winner's, the defaults'; empty before a trial is complete."""
    winner, confirmation = study.winner, study.confirmation
    if winner is None:
        return []
    defaults = study.standings[0]
    ours, theirs = parameters_of(winner, study.names), parameters_of(defaults, study.names)
    rows = [(title(name), ours[name], theirs[name]) for name in study.names]
    final = f"{defaults.loss:.4f}" if defaults.state == "complete" else defaults.state
    mean = f", mean of {winner.folds} folds" if winner.folds else ""
    rows.append((f"validation loss{mean}", f"{winner.loss:.4f}", final))
    for at, one in enumerate(winner.aims):
        other_one = f"{defaults.aims[at].value:.4g}" if defaults.aims else defaults.state
        rows.append((f"validation {title(one.aim)}", f"{one.value:.4g}", other_one))
    if confirmation is None:
        return rows
    first, second = confirmation.winner, confirmation.defaults
    objective = title(confirmation.objective)
    rows.append((f"confirm {objective}", scored(first.confirm), scored(second.confirm) if second else "-"))
    if first.test is None:
        return rows
    other = second.test if second else None
    rows.append((f"test {objective}", scored(first.test), scored(other) if other else "-"))
    for name, value in first.test.metrics.items():
        if name in _DETAILS:
            continue
        theirs_too = other.metrics.get(name) if other else None
        rows.append(
            (f"test {title(name)}", f"{value:.4g}", "-" if theirs_too is None else f"{theirs_too:.4g}")
        )
    return rows


def word_of(check: Check) -> str:
    """How a check of the winner ended, for people."""
    if check.passed:
        return "unknown" if math.isnan(check.value) else "ok"
    return "warning" if check.severity == "warn" else "error"


def failure_of(check: Check) -> str:
    """Which check it was, its value, and the limit that this passed."""
    found = "" if math.isnan(check.value) else f": {amount(check.value)}, limit {amount(check.limit)}"
    return f"{check.check}{found}"


def amount(value: float) -> str:
    """A value to three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def scored(score: Score) -> str:
    """A score with its standard error."""
    return f"{score.value:.4f} ± {score.standard_error:.4f}"
