"""When a best value says that the space was too narrow."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from sweep.analysis.advice import edges
from sweep.search.space import Space
from tests.recipes import DEFAULTS

SPACE = Space.from_mapping(
    {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "weight_decay": {"low": 0.0, "high": 0.3},
        "batch_size": {"choices": [1, 2, 8]},
        "lora_rank": {"choices": [4, 8, 16]},
        "lora_alpha": {"choices": [16, 32]},
        "lora_dropout": {"low": 0.1, "high": 0.2, "when": "lora_rank >= 16"},
        "schedule": {"choices": ["linear", "wsd"]},
    }
)
NAMES = [parameter.name for parameter in SPACE.parameters]
INSIDE = replace(
    DEFAULTS, learning_rate=1e-3, weight_decay=0.1, batch_size=2, lora_rank=8, lora_alpha=16, lora_dropout=0.1
)


def importances(**low: float) -> pd.DataFrame:
    return pd.DataFrame({"parameter": list(low), "total_low": list(low.values())})


ALL = importances(**dict.fromkeys(NAMES, 0.3))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"learning_rate": 9.9e-3}, ["learning rate 9.9e-3 (upper).", "Widen space.learning_rate and"]),
        ({"learning_rate": 1.01e-4}, ["learning rate 1.01e-4 (lower)."]),
        ({"weight_decay": 0.295}, ["weight decay 0.295 (upper)."]),
        (
            {"learning_rate": 1e-2, "lora_rank": 4},
            ["learning rate 0.01 (upper), LoRA rank 4 (lower).", "space.learning_rate, space.lora_rank and"],
        ),
        ({"lora_rank": 16, "lora_dropout": 0.2}, ["LoRA rank 16 (upper), LoRA dropout 0.2 (upper)."]),
    ],
)
def test_a_best_value_at_an_end_is_told(values: dict[str, float], told: list[str]) -> None:
    found = edges(replace(INSIDE, **values), SPACE, ALL)
    assert found is not None
    assert all(part in found for part in told)


@pytest.mark.parametrize(
    "values",
    [
        {},
        pytest.param({"weight_decay": 0.0, "batch_size": 1}, id="no lower value is allowed"),
        pytest.param({"lora_alpha": 32}, id="of two choices both are ends"),
        pytest.param({"lora_dropout": 0.2}, id="inactive at this rank"),
    ],
)
def test_where_nothing_can_be_widened_nothing_is_told(values: dict[str, float]) -> None:
    assert edges(replace(INSIDE, **values), SPACE, ALL) is None


def test_of_a_parameter_that_may_not_matter_nothing_is_told() -> None:
    at_the_end = replace(INSIDE, learning_rate=1e-2, lora_rank=16)
    found = edges(at_the_end, SPACE, importances(learning_rate=0.04, lora_rank=0.2))
    assert found is not None
    assert "learning rate" not in found
    assert edges(at_the_end, SPACE, importances()) is None
