"""A slice that one model serves worse is named, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.evaluation.compare import paired_difference
from sweep.evaluation.rows import RowValue
from sweep.evaluation.selection import Better
from sweep.evaluation.slices import Slice, compare_slices

# Three styles of 40 rows, one of 10, and two channels across them.
STYLES = ("formal", "plain", "angry") * 40 + ("rare",) * 10
IDS = [str(number) for number in range(len(STYLES))]
PARTS = {
    row: {"style": style, "channel": "chat" if number % 2 else "mail"}
    for number, (row, style) in enumerate(zip(IDS, STYLES, strict=True))
}
OWN = {row: number for number, row in enumerate(IDS)}


def values(**shifts: float) -> list[RowValue]:
    """Random values; those of the styles named are shifted."""
    drawn = np.random.default_rng(0).normal(size=len(IDS))
    return [
        RowValue(row, float(value) + shifts.get(style, 0.0))
        for row, value, style in zip(IDS, drawn, STYLES, strict=True)
    ]


def jittered(rows: list[RowValue], size: float = 0.2) -> list[RowValue]:
    noise = np.random.default_rng(1).normal(scale=size, size=len(rows))
    return [row._replace(total=row.total + float(more)) for row, more in zip(rows, noise, strict=True)]


def compare(
    first: list[RowValue], better: Better = "lower", *, clusters: dict[str, int] = OWN, least: int = 20
) -> dict[str, Slice]:
    found = compare_slices(first, values(), PARTS, clusters=clusters, seed=0, better=better, least=least)
    return {f"{one.column}={one.value}": one for one in found}


@pytest.mark.parametrize(("better", "shift"), [("lower", 0.5), ("higher", -0.5)])
def test_the_slice_that_is_served_worse_is_named_and_no_other(better: Better, shift: float) -> None:
    found = compare(jittered(values(formal=shift)), better)
    assert list(found) == ["channel=chat", "channel=mail", "style=angry", "style=formal", "style=plain"]
    assert found["style=formal"].difference.value == pytest.approx(shift, abs=0.1)
    # The formal rows stand on both channels, a third of each.
    assert {name for name, one in found.items() if one.worse and name.startswith("style")} == {"style=formal"}


@pytest.mark.parametrize(("better", "shift"), [("lower", -0.5), ("higher", 0.5)])
def test_a_slice_that_is_served_better_is_not_worse(better: Better, shift: float) -> None:
    assert not any(one.worse for one in compare(jittered(values(formal=shift)), better).values())


def test_a_slice_of_few_rows_is_left_out_however_bad_it_is() -> None:
    first = jittered(values(rare=9.0))
    assert "style=rare" not in compare(first)
    assert compare(first, least=10)["style=rare"].worse


def test_a_slice_of_few_groups_is_shown_and_not_called_worse() -> None:
    together = {row: number // 15 for row, number in OWN.items()}
    found = compare(jittered(values(formal=0.5)), clusters=together)["style=formal"]
    assert found.difference.clusters == 8
    assert found.difference.low > 0
    assert not found.worse


def test_differences_are_those_of_their_rows_and_p_values_count_the_slices() -> None:
    first, second = jittered(values(formal=0.035), size=0.15), values()
    found = compare(first)
    plain = {}
    for name in found:
        column, _, value = name.partition("=")
        rows = [at for at, row in enumerate(IDS) if PARTS[row][column] == value]
        plain[name] = paired_difference(
            [first[at] for at in rows], [second[at] for at in rows], clusters=OWN, seed=0
        )
        assert (found[name].difference.value, found[name].difference.low) == (
            plain[name].value,
            plain[name].low,
        )
    # Holm's steps: the smallest times 5, the next times 4, none below one before it.
    ascending = sorted(plain, key=lambda name: plain[name].p_value)
    steps = [min(1.0, (5 - at) * plain[name].p_value) for at, name in enumerate(ascending)]
    expected = dict(zip(ascending, np.maximum.accumulate(steps), strict=True))
    assert {name: one.difference.p_value for name, one in found.items()} == pytest.approx(expected)
    assert plain["style=formal"].p_value < 0.05 < found["style=formal"].difference.p_value
    assert plain["style=formal"].low > 0
    assert not found["style=formal"].worse, "one of five is often so far off by chance"


def test_rows_without_slices_have_none() -> None:
    assert (
        compare_slices(values(), values(), {row: {} for row in IDS}, clusters=OWN, seed=0, better="lower")
        == ()
    )
