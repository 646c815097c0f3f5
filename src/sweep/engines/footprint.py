"""What a trial's state takes on disk, told before anything is trained."""

from __future__ import annotations

from sweep.engines.lora import targeted
from sweep.engines.model import ModelSource, skeleton
from sweep.types import Recipe

# Adapters are kept in it, whatever the model's own type; beside them two moments of AdamW.
_FLOAT32_BYTES, _COPIES = 4, 3
# Configuration, checksums and random state; what names the tensors of a layer.
_BESIDE_BYTES, _LAYER_BYTES = 64 * 1024, 4 * 1024


def state_bytes(source: ModelSource, recipe: Recipe) -> int | None:
    """Of the recipe's adapter with its moments; None where the model tells its shape only once it is loaded.

    Raises ConfigError if the recipe names a layer that the model doesn't have.
    """
    if (model := skeleton(source)) is None:
        return None
    layers = targeted(model, recipe).values()
    weights = recipe.lora_rank * sum(layer.in_features + layer.out_features for layer in layers)
    if recipe.dora:
        weights += sum(layer.out_features for layer in layers)
    return _COPIES * _FLOAT32_BYTES * weights + _LAYER_BYTES * len(layers) + _BESIDE_BYTES
