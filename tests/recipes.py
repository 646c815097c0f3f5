"""The recipe that tests start from."""

from __future__ import annotations

from sweep.types import Recipe

DEFAULTS = Recipe(
    learning_rate=3e-4,
    batch_size=8,
    weight_decay=0.0,
    lora_rank=16,
    lora_alpha=32.0,
    lora_dropout=0.0,
    target_modules="all-linear",
    rslora=False,
    warmup_fraction=0.1,
    schedule="linear",
    epochs=1.0,
    max_gradient_norm=1.0,
)
