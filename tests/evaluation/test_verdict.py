"""When a winner is shipped, when the baseline is used, and when nobody knows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sweep.evaluation.compare import Difference
from sweep.evaluation.verdict import Comparison, judge_winner
from sweep.types import Verdict

BETTER = (0.1, 0.05, 0.15)
UNCLEAR = (0.1, -0.01, 0.21)
WORSE = (-0.1, -0.3, 0.1)


def compared(
    rival: str, interval=BETTER, *, p: float = 0.001, clusters: int = 40, succeeds: bool = False
) -> Comparison:
    value, low, high = interval
    difference = Difference(value=value, low=low, high=high, p_value=p, rows=80, clusters=clusters)
    return Comparison(rival=rival, difference=difference, signed_rank_p=0.5, succeeds=succeeds)


def guard(severity: str, *, passed: bool) -> Verdict:
    return Verdict(check="min_k", passed=passed, severity=severity, value=0.95, limit=0.9, message="")  # type: ignore[arg-type]


def judged(baseline, defaults, *guards):
    return judge_winner(baseline, defaults, guards=guards, better="higher")


CASES = {
    "beats both": (compared("canned"), compared("defaults"), "ship"),
    "is the defaults": (compared("canned"), None, "ship"),
    "baseline unclear": (compared("canned", UNCLEAR), compared("defaults"), "no_evidence"),
    "baseline unclear and enough": (compared("canned", UNCLEAR, succeeds=True), None, "use_baseline"),
    "baseline better": (compared("canned", WORSE), compared("defaults"), "use_baseline"),
    "baseline as good": (compared("canned", (0.0, 0.0, 0.0), p=1.0), None, "use_baseline"),
    "baseline enough but beaten": (compared("canned", succeeds=True), None, "ship"),
    "defaults unclear": (compared("canned"), compared("defaults", UNCLEAR), "no_evidence"),
    "interval without p value": (compared("canned", p=0.06), None, "no_evidence"),
    "no baseline": (None, compared("defaults"), "no_evidence"),
    "few groups": (compared("canned", clusters=9), compared("defaults", clusters=9), "no_evidence"),
    "ten groups": (compared("canned", clusters=10), compared("defaults", clusters=10), "ship"),
    "few groups, baseline ahead": (compared("canned", WORSE, clusters=9, succeeds=True), None, "no_evidence"),
}


@pytest.mark.parametrize(("baseline", "defaults", "expected"), CASES.values(), ids=CASES)
def test_the_outcome_follows_the_weakest_claim(baseline, defaults, expected):
    judgement = judged(baseline, defaults)
    assert judgement.outcome == expected
    assert judgement.verdict.passed == (expected == "ship")
    assert judgement.verdict.check == "ship"


def test_a_failed_guard_keeps_the_winner_back_and_a_warning_does_not():
    both = compared("canned"), compared("defaults")
    held = judged(*both, guard("warn", passed=False), guard("error", passed=False))
    assert held.outcome == "no_evidence"
    assert "fails the guards (min_k)" in held.verdict.message
    assert judged(*both, guard("warn", passed=False), guard("error", passed=True)).outcome == "ship"
    assert judged(compared("canned", WORSE), None, guard("error", passed=False)).outcome == "use_baseline"


def test_p_values_count_after_holm():
    # Alone each lies below 0.05; together the smaller one would have to lie below 0.025.
    both = compared("canned", p=0.03), compared("defaults", p=0.04)
    judgement = judged(*both)
    assert judgement.outcome == "no_evidence"
    adjusted = {one.rival: one.difference.p_value for one in judgement.comparisons}
    assert adjusted == pytest.approx({"canned": 0.06, "defaults": 0.06})
    assert judged(both[0], None).outcome == "ship"
    assert judged(compared("canned", p=0.02), both[1]).outcome == "ship"


def test_of_losses_the_lower_is_better():
    def turned(one: Comparison) -> Comparison:
        value, low, high = one.difference.value, one.difference.low, one.difference.high
        return compared(one.rival, (-value, -high, -low), succeeds=one.succeeds)

    for interval, expected in ((BETTER, "ship"), (UNCLEAR, "no_evidence"), (WORSE, "use_baseline")):
        baseline = turned(compared("canned", interval))
        judgement = judge_winner(baseline, turned(compared("defaults")), guards=(), better="lower")
        assert judgement.outcome == expected


def test_the_sentence_names_the_rival_and_what_to_do():
    verdict = judged(compared("few-shot", UNCLEAR, succeeds=True), None).verdict
    assert verdict.message == (
        "the gain over few-shot could be chance, and few-shot meets the goal without training: use it"
    )
    assert verdict.value == 0.1
    few = judged(compared("canned", clusters=4), None).verdict.message
    assert few.startswith("4 independent groups of rows are too few to tell: at least 10 must be there")
    assert math.isnan(judged(None, None).verdict.value)


def test_shipping_says_whether_anybody_looked_for_recitation():
    probed = guard("warn", passed=True)
    limit = replace(probed, check="resolved")
    both = compared("canned"), compared("defaults")
    assert judged(*both, limit, probed).verdict.message.endswith("and no guard fails: ship it")
    unseen = judged(*both, limit)
    assert unseen.outcome == "ship"
    assert unseen.verdict.message.endswith("learnt by heart: no rows were probed (guards.rows)")
