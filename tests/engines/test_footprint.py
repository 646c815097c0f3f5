"""What a state is said to take on disk is what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweep.engines import checkpoint
from sweep.engines.footprint import state_bytes
from sweep.engines.inputs import Inputs
from sweep.engines.model import RandomLlama
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.errors import ConfigError
from sweep.types import Recipe
from tests.contracts.engine import RECIPE, job, reports

# Large enough that weights outweigh headers.
MODEL = RandomLlama(hidden_size=64, layers=4, heads=4, seed=0, dtype="float32")
RECIPES = {
    "all layers": replace(RECIPE, lora_rank=64),
    "some layers": replace(RECIPE, lora_rank=64, target_modules=("q_proj", "down_proj")),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("engine", ["packed", "solo"])
def test_a_state_takes_what_was_said(engine: str, recipe: Recipe, inputs: Inputs) -> None:
    given = replace(inputs, model=MODEL)
    made = (
        Packed(inputs=given, slots=1, tokens=256) if engine == "packed" else Solo(inputs=given, micro_batch=8)
    )
    (report,) = reports(made, job(0, 8, recipe=recipe))
    made.close()
    taken = sum(checkpoint.files(report.checkpoint or "").values())
    assert 0.9 * state_bytes(MODEL, recipe) < taken <= state_bytes(MODEL, recipe)


def test_a_layer_that_is_not_there_is_told_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="'nowhere' is no linear layer"):
        state_bytes(MODEL, replace(RECIPE, target_modules=("nowhere",)))
