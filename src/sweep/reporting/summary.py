"""What a sweep found, in a few sentences and a table: for the report's head and the run's description."""

from __future__ import annotations

from typing import NamedTuple

from sweep.analysis.axes import sentence, title
from sweep.analysis.effects import Effects
from sweep.reporting.live import failing, parameters_of
from sweep.search.stored import StoredStudy
from sweep.types import Score, Standing


class Verdict(NamedTuple):
    """The first thing read. tone: good, plain or open."""

    tone: str
    headline: str
    text: str


def verdict_of(study: StoredStudy) -> Verdict:
    """Whether the winner beats the defaults, and by how much; before that, how far the search is.

    Where every trial fails its guards, that, whatever the losses.
    """
    confirmation, best = study.confirmation, study.best
    if best is None:
        return Verdict("open", "No trial has come to its end yet.", _progress(study))
    leads = f"Trial {best.trial.id} leads with a validation loss of {best.loss:.3f}"
    if best.broken:
        return Verdict(
            "plain", f"No trial may win: even trial {best.trial.id} {failing(best)}.", _guards(best)
        )
    if confirmation is None:
        return Verdict("open", f"{leads}, not confirmed yet.", _progress(study))
    difference, rows = confirmation.difference, confirmation.best.examples
    message = f"{sentence(confirmation.verdict.message)}."
    if difference is None or confirmation.trial == "0":
        return Verdict("plain", message, f"{leads}.")
    assert confirmation.defaults is not None
    numbers = (
        f"On {rows} rows that the search never saw its loss is {confirmation.best.value:.3f} nats per token, "
        f"the defaults' {confirmation.defaults.value:.3f}: a difference of {difference.value:+.3f} "
        f"(95%: {difference.low:+.3f} to {difference.high:+.3f})."
    )
    if confirmation.verdict.passed:
        return Verdict("good", f"Trial {best.trial.id} beats the defaults.", numbers)
    headline = f"No evidence that trial {best.trial.id} beats the defaults."
    return Verdict("plain", headline, f"{numbers} {message}")


def _guards(best: Standing) -> str:
    failed = [verdict.message for verdict in best.verdicts if verdict.check in best.broken]
    return " ".join(f"{sentence(message)}." for message in failed)


def _progress(study: StoredStudy) -> str:
    ended = sum(s.state not in ("running", "paused") for s in study.standings)
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
    """What is compared, the best trial's, the defaults'; empty before a trial is complete."""
    best, confirmation = study.best, study.confirmation
    if best is None:
        return []
    defaults = study.standings[0]
    ours, theirs = parameters_of(best, study.names), parameters_of(defaults, study.names)
    rows = [(title(name), ours[name], theirs[name]) for name in study.names]
    final = f"{defaults.loss:.4f}" if defaults.state == "complete" else defaults.state
    rows.append(("validation loss", f"{best.loss:.4f}", final))
    if confirmation is None:
        return rows
    first, second = confirmation.best, confirmation.defaults
    rows.append(("confirm loss", scored(first), scored(second) if second else "-"))
    for name, value in first.metrics.items():
        other = second.metrics.get(name) if second else None
        rows.append((f"confirm {title(name)}", f"{value:.4g}", "-" if other is None else f"{other:.4g}"))
    return rows


def scored(score: Score) -> str:
    """A score with its standard error."""
    return f"{score.value:.4f} ± {score.standard_error:.4f}"


def as_markdown(study: StoredStudy, effects: Effects) -> str:
    """Verdict, sentences and comparison, for the description of the sweep's run."""
    verdict = verdict_of(study)
    lines = [
        f"**{verdict.headline}** {verdict.text}",
        "",
        *(f"- {point}" for point in points_of(study, effects)),
    ]
    if (rows := comparison_of(study)) and study.best:
        lines += ["", f"| | best (trial {study.best.trial.id}) | defaults (trial 0) |", "|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", "The whole report: `report.html` among the artifacts."])
