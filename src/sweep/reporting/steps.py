"""What to do next: from the decision, then from each check that failed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sweep.analysis.axes import title
from sweep.data.audit.finding import Audited
from sweep.evaluation.compare import FEWEST_CLUSTERS
from sweep.evaluation.confirmation import Confirmation
from sweep.evaluation.verdict import Comparison, beaten
from sweep.search.stored import StoredStudy
from sweep.types import Verdict

# By check of the winner.
MENDS = {
    "net_per_ticket": "Find out which tickets cost most: those answered wrongly, as a rule.",
    "resolved": "Read the replies that resolve nothing, and add rows that show what would have.",
    "wrong": "Add rows that hand over to a person, so that fewer tickets are answered wrongly.",
    "p95_latency_ms": "Shorten the replies or serve on a faster machine: too many replies come late.",
    "calibrated": "Let people label 100 replies (objective.labels), so that amounts mean money.",
    "pii_leak": "Take what tells who somebody else is out of the training rows.",
    "toxic": "Take toxic answers out of the training rows.",
    "loss_ratio": "Train for fewer epochs or lower the rank: the winner knows its rows, not the subject.",
    "min_k": "Train for fewer epochs: the winner remembers single rows.",
    "verbatim": "Train for fewer epochs: the winner recites its rows.",
    "overlap": "Train for fewer epochs or vary the rows: the winner pieces its answers together from them.",
    "forgetting": "Lower the learning rate or the rank, or mix general rows in: the winner forgets.",
    "proxy_agrees": "Confirm more finalists (confirm.top_k): the loss orders trials otherwise than the goal.",
    "learning_curve": "Collect more rows: the last doubling of them still lowered the loss.",
}
# The same where the check could not be made.
_UNKNOWN = {
    "toxic": "Add a scorer named toxic, or set objective.hard_limits.toxic_max=null.",
    "proxy_agrees": "Confirm at least four trials (confirm.top_k), to see whether the loss serves the goal.",
}


def steps_of(study: StoredStudy) -> list[str]:
    """Sentences, the most urgent first."""
    confirmation = study.confirmation
    if confirmation is None:
        return ["Let the sweep come to its end: its command goes on where it stopped.", *_data(study)]
    return [*_decided(study, confirmation), *_mends(confirmation), *_data(study)]


def _decided(study: StoredStudy, confirmation: Confirmation) -> list[str]:
    outcome, baseline = confirmation.judgement.outcome, confirmation.baseline
    if outcome == "ship":
        best = study.handed.best if study.handed else "the best configuration"
        return [f"Review {best}, then train with it."]
    if outcome == "use_baseline" and baseline is not None:
        name, limited = title(baseline.name), study.notes.goal and study.notes.goal.limits
        if baseline.succeeds or not limited:
            return [f"Use {name}, and spend nothing on training."]
        return [
            f"Use neither yet: {name} is no worse than training and cheaper, but misses the goal. Improve "
            "it, or search again with more rows."
        ]
    return [_lacking(study, confirmation)]


def _lacking(study: StoredStudy, confirmation: Confirmation) -> str:
    """What would be evidence, in the order in which `judge_winner` asks for it."""
    versus = _comparison(confirmation, confirmation.baseline.name if confirmation.baseline else None)
    if versus is None:
        return "Measure a simpler way: baseline=[nearest,zero_shot]."
    clusters = versus.difference.clusters
    if clusters < FEWEST_CLUSTERS:
        return f"Give more rows or a larger data.split.test: {clusters} groups of rows can't tell."
    if not beaten(versus, confirmation.better):
        return f"Give more rows or try another base model: the gain over {title(versus.rival)} may be chance."
    if any(not check.passed and check.severity == "error" for check in confirmation.verdicts):
        return "Ship nothing before the errors among guards and limits are mended."
    return (
        f"Train with the recipe's own values, or search on (budget.trials, now {study.trials}): the gain "
        "over them may be chance."
    )


def _comparison(confirmation: Confirmation, rival: str | None) -> Comparison | None:
    return next((one for one in confirmation.judgement.comparisons if one.rival == rival), None)


def _mends(confirmation: Confirmation) -> list[str]:
    failed = sorted(
        (check for check in confirmation.verdicts if not check.passed), key=lambda check: check.severity
    )
    rival = title(confirmation.baseline.name) if confirmation.baseline else ""
    worse = [f"{title(one.column)} {one.value}" for one in confirmation.slices if one.worse]
    return [
        *map(_mend, failed),
        *_joined(f"Add rows of what is served worse than by {rival}", worse),
        *_fresh(confirmation.opened),
    ]


def _mend(check: Verdict) -> str:
    """What to do about a failed check, one's own objective's too."""
    known = _UNKNOWN if math.isnan(check.value) and check.check in _UNKNOWN else MENDS
    return known.get(check.check, f"Mend what {title(check.check)} found: {check.message}.")


def _fresh(opened: int) -> list[str]:
    if opened < 2:
        return []
    return [f"Keep new test rows back: these were opened {opened} times, and each time tells less."]


def _data(study: StoredStudy) -> list[str]:
    audited: Audited | None = study.notes.audit
    if audited is None:
        return []
    failed = audited.failed_by_word
    return [
        *_joined("Mend the data where its failures were allowed", map(title, failed.get("allowed", ()))),
        *_joined("Read the warnings about the data", map(title, failed.get("warning", ()))),
    ]


def _joined(what: str, names: Iterable[str]) -> list[str]:
    told = ", ".join(names)
    return [f"{what}: {told}."] if told else []
