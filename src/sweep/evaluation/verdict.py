"""Whether the winner is to be shipped, on rows that nobody chose anything by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweep.evaluation.compare import CONFIDENCE, FEWEST_CLUSTERS, Difference
from sweep.evaluation.guards import PROBED
from sweep.evaluation.selection import Better
from sweep.evaluation.significance import holm
from sweep.types import Decision, Verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The winner less one rival on the test split.

    signed_rank_p: a second opinion, shown and not decided by. succeeds: whether the rival meets the goal's
    `success` by itself.
    """

    rival: str
    difference: Difference
    signed_rank_p: float
    succeeds: bool


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What to do with the winner, and why. comparisons: with p values adjusted for their number."""

    outcome: Decision
    verdict: Verdict
    comparisons: tuple[Comparison, ...]


def judge_winner(
    baseline: Comparison | None,
    defaults: Comparison | None,
    *,
    guards: Sequence[Verdict],
    better: Better,
) -> Judgement:
    """The judgement of the winner against the best baseline and against the recipe's own values.

    "ship": it beats both, each by an interval and an adjusted p value, and no guard fails with severity
    error. "use_baseline": the baseline's mean is no worse; or the winner isn't shown to beat it, and it
    succeeds by itself, so that nothing need be trained. "no_evidence": all else, whoever leads, where rows
    form fewer than FEWEST_CLUSTERS groups, and where no baseline was measured. defaults: None where the
    winner is the defaults, or these did not come to their end.
    """
    rivals = [rival for rival in (baseline, defaults) if rival is not None]
    adjusted = holm({rival.rival: rival.difference.p_value for rival in rivals})
    rivals = [_with_p(rival, adjusted[rival.rival]) for rival in rivals]
    outcome, message = _decide(
        rivals[0] if baseline is not None else None,
        rivals[-1] if defaults is not None else None,
        guards=guards,
        better=better,
    )
    verdict = Verdict(
        check="ship",
        passed=outcome == "ship",
        severity="warn",
        value=baseline.difference.value if baseline else math.nan,
        limit=0.0,
        message=message,
    )
    return Judgement(outcome=outcome, verdict=verdict, comparisons=tuple(rivals))


def beaten(rival: Comparison, better: Better) -> bool:
    """Whether the winner is shown to be better: by the interval, and by the adjusted p value."""
    apart = rival.difference.high < 0 if better == "lower" else rival.difference.low > 0
    return apart and rival.difference.p_value < 1 - CONFIDENCE


def _decide(
    baseline: Comparison | None, defaults: Comparison | None, *, guards: Sequence[Verdict], better: Better
) -> tuple[Decision, str]:
    """The outcome, and a sentence that says what it rests on and what to do."""
    if baseline is None:
        return "no_evidence", "no baseline was measured, so nobody knows what training is worth: measure one"
    clusters = baseline.difference.clusters
    if clusters < FEWEST_CLUSTERS:
        return "no_evidence", (
            f"{clusters} independent groups of rows are too few to tell: at least {FEWEST_CLUSTERS} must be "
            "there; give more data or a larger data.split.test"
        )
    if _gain(baseline.difference, better) <= 0:
        return "use_baseline", f"{baseline.rival} is as good or better, and needs no training"
    if not beaten(baseline, better):
        could = f"the gain over {baseline.rival} could be chance"
        if baseline.succeeds:
            return "use_baseline", f"{could}, and {baseline.rival} meets the goal without training: use it"
        return "no_evidence", f"{could}: more rows, more data or another base model would tell"
    if broken := [guard for guard in guards if not guard.passed and guard.severity == "error"]:
        names = ", ".join(guard.check for guard in broken)
        return "no_evidence", f"it beats {baseline.rival}, but fails the guards ({names}): mend that first"
    if defaults is not None and not beaten(defaults, better):
        return "no_evidence", (
            f"it beats {baseline.rival}, but its gain over {defaults.rival} could be chance: those would do "
            "as well, and more trials or rows would tell"
        )
    both = " and ".join(rival.rival for rival in (baseline, defaults) if rival is not None)
    won = f"it beats {both} on rows that nothing was chosen by"
    if not any(guard.check in PROBED for guard in guards):
        return (
            "ship",
            f"{won}; but nobody looked what it learnt by heart: no rows were probed (guards.rows)",
        )
    return "ship", f"{won}, and no guard fails: ship it"


def _gain(difference: Difference, better: Better) -> float:
    return -difference.value if better == "lower" else difference.value


def _with_p(rival: Comparison, p_value: float) -> Comparison:
    return replace(rival, difference=replace(rival.difference, p_value=p_value))
