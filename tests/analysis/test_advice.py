"""When a best value says that the space was too narrow."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from sweep.analysis.advice import edges
from sweep.analysis.axes import Axis
from tests.recipes import DEFAULTS

AXES = [
    Axis(name="learning_rate", scale="log", low=1e-4, high=1e-2),
    Axis(name="lora_rank", scale="ordered", choices=(4, 8, 16)),
    Axis(name="schedule", scale="categorical", choices=("linear", "wsd")),
]


def importances(**totals: float) -> pd.DataFrame:
    return pd.DataFrame({"parameter": list(totals), "total": list(totals.values())})


ALL = importances(learning_rate=0.6, lora_rank=0.3, schedule=0.5)


@pytest.mark.parametrize(
    ("rate", "rank", "told"),
    [
        (9.9e-3, 8, ["learning rate 9.9e-3 (upper).", "Widen space.learning_rate and"]),
        (1.01e-4, 8, ["learning rate 1e-4 (lower)."]),
        (1e-3, 16, ["LoRA rank 16 (upper).", "Widen space.lora_rank and"]),
        (
            1e-2,
            4,
            ["learning rate 0.01 (upper), LoRA rank 4 (lower).", "space.learning_rate, space.lora_rank"],
        ),
    ],
)
def test_a_best_value_at_an_end_is_told(rate: float, rank: int, told: list[str]) -> None:
    found = edges(replace(DEFAULTS, learning_rate=rate, lora_rank=rank), AXES, ALL)
    assert found is not None
    assert all(part in found for part in told)


def test_of_a_best_inside_nothing_is_told() -> None:
    assert edges(replace(DEFAULTS, learning_rate=1e-3, lora_rank=8), AXES, ALL) is None


def test_of_a_parameter_that_hardly_matters_nothing_is_told() -> None:
    at_the_end = replace(DEFAULTS, learning_rate=1e-2, lora_rank=16)
    found = edges(at_the_end, AXES, importances(learning_rate=0.09, lora_rank=0.2))
    assert found is not None
    assert "learning rate" not in found
    assert edges(at_the_end, AXES, importances()) is None
