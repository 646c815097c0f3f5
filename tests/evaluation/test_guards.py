"""Guards on probes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from sweep.errors import ConfigError
from sweep.evaluation.guards import (
    Guards,
    auc,
    constraints,
    guard_forgetting,
    guard_overlap,
    guard_probe,
    rising,
)
from sweep.evaluation.rows import RowValue
from sweep.paths import packaged_root
from sweep.schema import build
from sweep.types import RowProbe, Split, Verdict

STANDARD = yaml.safe_load((packaged_root() / "conf/guards/standard.yaml").read_text())
GUARDS = build(Guards, STANDARD, "guards")
TRAINED = "parcels over thirty kilos travel by freight and need a delivery date of their own"


def probe(
    split: Split,
    *,
    count: int = 48,
    loss: float = 2.0,
    min_k: float = -4.0,
    base_min_k: float = -5.0,
    recited: int | None = None,
) -> list[RowProbe]:
    """Rows of one loss per token; min_k spread by 1 around its mean; recited: so many, None: none asked."""
    return [
        RowProbe(
            row=f"{split}-{i}-{recited}",
            split=split,
            nats=loss * (5 + i),
            tokens=5 + i,
            min_k=min_k + (i + 0.5) / count - 0.5,
            base_min_k=base_min_k + (i + 0.5) / count - 0.5,
            verbatim=None if recited is None else i < recited,
        )
        for i in range(count)
    ]


def verdicts(trained: list[RowProbe], held_out: list[RowProbe]) -> dict[str, Verdict]:
    return {verdict.check: verdict for verdict in guard_probe([*trained, *held_out], GUARDS)}


def told(verdict: Verdict) -> str:
    return "passed" if verdict.passed else verdict.severity


@pytest.mark.parametrize(("ratio", "expected"), [(1.9, "passed"), (2.1, "warn"), (4.1, "error")])
def test_the_loss_ratio_is_told_by_how_far_it_is(ratio, expected):
    found = verdicts(probe("train", loss=0.5), probe("validation", loss=0.5 * ratio))["loss_ratio"]
    assert told(found) == expected
    assert found.value == pytest.approx(ratio)
    assert f"{ratio:.1f} times" in found.message


def test_the_losses_are_those_of_all_tokens():
    rows = [
        RowProbe("a", "train", 1.0, 1, -1.0, -1.0, None),
        RowProbe("b", "train", 1.0, 9, -1.0, -1.0, None),
    ]
    new = [RowProbe("c", "confirm", 6.0, 10, -1.0, -1.0, None)]
    assert verdicts(rows, new)["loss_ratio"].value == pytest.approx(3.0)


def test_a_trial_without_any_loss_on_its_rows_fails_by_a_finite_amount():
    found = verdicts(probe("train", loss=0.0), probe("validation"))["loss_ratio"]
    assert found.value == math.inf
    assert constraints([found]) == 1.0


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, "passed"), (0.4, "warn"), (0.7, "error"), (-2.0, "passed")]
)
def test_min_k_is_judged_by_how_well_it_tells_rows_apart(shift, expected):
    trained, new = probe("train", min_k=-4.0 + shift), probe("validation")
    found = verdicts(trained, new)["min_k"]
    assert told(found) == expected
    labels = [1] * 48 + [0] * 48
    assert found.value == pytest.approx(roc_auc_score(labels, [row.min_k for row in [*trained, *new]]))


@pytest.mark.parametrize("luck", [-0.8, 0.3, 0.8])
def test_min_k_leaves_out_what_the_base_model_makes_of_the_same_rows(luck):
    """Normal scores: training shifts one side by 1.3, whatever side the base model prefers."""
    rng = np.random.default_rng(3)
    count = 4000

    def side(split: Split, before: float, shift: float) -> list[RowProbe]:
        rows = probe(split, count=count)
        base = rng.normal(before, 1.0, count)
        return [
            row._replace(base_min_k=float(b), min_k=float(b) + shift)
            for row, b in zip(rows, base, strict=True)
        ]

    trained, new = side("train", luck, 1.3), side("validation", 0.0, 0.0)
    (found,) = [one for one in guard_probe([*trained, *new], GUARDS) if one.check == "min_k"]
    assert found.value == pytest.approx(norm.cdf(1.3 / math.sqrt(2)), abs=0.015)
    untrained = [row._replace(min_k=row.base_min_k) for row in (*trained, *new)]
    assert verdicts(untrained[:count], untrained[count:])["min_k"].value == pytest.approx(0.5)


def test_min_k_cant_tell_where_the_base_model_parts_the_rows_already():
    found = verdicts(probe("train", base_min_k=-1.0), probe("validation", base_min_k=-9.0))["min_k"]
    assert found.passed
    assert math.isnan(found.value)


def test_min_k_of_rows_told_apart_without_fail_is_one():
    assert verdicts(probe("train", min_k=-1.0), probe("validation", min_k=-9.0))["min_k"].value == 1.0


@pytest.mark.parametrize("sides", [(47, 48), (48, 47), (0, 48), (0, 0)])
def test_few_rows_leave_min_k_open(sides):
    trained, new = (
        probe("train", count=sides[0], min_k=-1.0),
        probe("validation", count=sides[1], min_k=-9.0),
    )
    found = verdicts(trained, new)["min_k"]
    assert found.passed
    assert math.isnan(found.value)
    assert found.message.startswith("can't tell: ")
    assert constraints([found]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_sklearns_ties_included(seed):
    rng = np.random.default_rng(seed)
    higher, lower = rng.integers(0, 6, 30).tolist(), rng.integers(0, 5, 41).tolist()
    assert auc(higher, lower) == pytest.approx(roc_auc_score([1] * 30 + [0] * 41, higher + lower))


@pytest.mark.parametrize(("recited", "expected"), [(2, "passed"), (3, "warn"), (9, "warn"), (10, "error")])
def test_recited_rows_are_counted_among_the_trained_ones_asked(recited, expected):
    trained = [*probe("train", recited=recited), *probe("train", count=20)]
    # On narrow data held-out rows are recited too; that neither excuses nor accuses.
    for new in (probe("validation"), probe("validation", recited=48)):
        found = verdicts(trained, new)["verbatim"]
        assert told(found) == expected
        assert found.value == pytest.approx(recited / 48)


def test_nobody_asked_nobody_recited():
    found = verdicts(probe("train"), probe("validation", recited=48))["verbatim"]
    assert found.passed
    assert found.message == "can't tell: no trained row was continued from its middle"


def overlap(outputs: list[str], references: list[str]) -> Verdict:
    return guard_overlap(outputs, references, [TRAINED], GUARDS)


def test_what_is_copied_counts_beyond_what_right_answers_share():
    own = "our shop in the old harbour opens at nine on every day but sunday morning"
    copied = f"{TRAINED.upper()}!"
    words = len(TRAINED.split())
    assert overlap([own], [own]).value == 0.0
    found = overlap([copied], [own])
    assert (found.value, told(found)) == (1.0, "error")
    assert "100% of what the model writes" in found.message
    assert overlap([copied], [TRAINED]).value == 0.0, "right answers say the same"
    # Both texts have as many words, so half of the sequences of eight are known.
    pad = " ".join(f"new{i}" for i in range(words))
    assert overlap([TRAINED, pad], [own]).value == pytest.approx(0.5)


def test_seven_words_are_no_copy_and_short_texts_leave_it_open():
    seven = " ".join(TRAINED.split()[:7])
    assert overlap([f"{seven} but not this time round"], [TRAINED]).value == -1.0
    found = overlap([seven], [TRAINED])
    assert found.passed
    assert found.message == "can't tell: no answer or no reference has 8 words"


@pytest.mark.parametrize(
    ("after", "expected"), [(1.0, "passed"), (1.09, "passed"), (1.11, "warn"), (3, "warn")]
)
def test_forgetting_only_ever_warns(after, expected):
    base = [RowValue("a", 30.0, 10), RowValue("b", 10.0, 10)]
    tuned = [RowValue("a", 30.0 * after, 10), RowValue("b", 10.0 * after, 10)]
    found = guard_forgetting(base, tuned, GUARDS)
    assert told(found) == expected
    assert found.value == pytest.approx(after - 1)
    assert constraints([found]) == 0.0


@pytest.mark.parametrize(
    ("losses", "noise", "expected"),
    [
        ([], None, False),
        ([1.0, 1.1], None, False),
        ([1.0, 1.1, 1.2], None, True),
        ([3.0, 1.0, 1.1, 1.2], None, True),
        ([1.0, 1.1, 1.2, 1.15], None, False),
        ([1.0, 1.1, 1.1], None, False),
        ([1.2, 1.0, 1.1, 1.0, 1.1], None, False),
        ([1.0, 1.1, 1.2], [0.05, 0.05], True),
        ([1.0, 1.1, 1.2], [0.05, 0.2], False),
        ([1.0, 1.1, 1.2], [0.2, 0.05], False),
    ],
)
def test_two_rises_in_a_row_beyond_the_noise_stop_a_trial(losses, noise, expected):
    assert rising(losses, noise=noise) is expected


def test_noise_that_fits_other_losses_is_refused():
    with pytest.raises(ValueError, match="argument"):
        rising([1.0, 1.1, 1.2], noise=[0.1])


def verdict(value: float, *, passed: bool = False, severity: str = "error") -> Verdict:
    return Verdict(
        check="any",
        passed=passed,
        severity=severity,
        value=value,
        limit=0.2,
        message="",  # type: ignore[arg-type]
    )


def test_constraints_are_0_for_who_may_win_and_grow_with_what_is_wrong():
    assert constraints([]) == 0.0
    assert constraints([verdict(0.9, severity="warn"), verdict(0.1, passed=True)]) == 0.0
    little, much = constraints([verdict(0.21)]), constraints([verdict(0.8)])
    assert 0.0 < little < much < constraints([verdict(0.8), verdict(0.21)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"min_k": {"warn": 0.9, "error": 0.8}}, "guards.min_k: warn must be"),
        ({"verbatim": {"warn": -0.1, "error": None}}, "guards.verbatim: warn must be"),
        ({"overlap": {"warn": 0.0, "error": 0.0}}, "guards.overlap: warn must be"),
        ({"least_rows": 1}, "guards.least_rows: must be at least 2, got 1"),
        ({"rows": 0}, "guards.rows: must be at least 1, got 0"),
        ({"continued": -1}, "guards.continued: must be at least 0, got -1"),
    ],
)
def test_limits_that_contradict_themselves_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        build(Guards, {**STANDARD, **changed}, "guards")
