"""Trained tokens per second of the solo engine by rows in memory at once, same batch by accumulation.

    python benchmarks/micro_batch.py

SmolLM2-135M on the shipped data, batch 8, interleaved repeats in one process. Writes
benchmarks/results/micro_batch.json. Tokens are those of the rows, padding not counted.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from jobs import RECIPE as SHARED
from jobs import RESULTS, SMOLLM2, SOURCE, Jobs, job, machine, shipped_rows, trial
from sweep.engines.inputs import Inputs
from sweep.engines.solo import Solo
from sweep.types import Progress, View

SIZES = (8, 4, 2, 1)
REPEATS = 3
EXAMPLES = 24
RECIPE = dataclasses.replace(SHARED, learning_rate=3e-4, warmup_fraction=0.1)


def tokens_per_second(engine: Solo, name: str) -> float:
    """Of the steps after the first, which pays for memory that later ones reuse."""
    one = job(trial(name, RECIPE), EXAMPLES, evaluation=View("validation", 1))
    begun, tokens = 0.0, 0
    for event in engine.run(Jobs([one])):
        if isinstance(event, Progress):
            if begun:
                tokens += event.tokens
                ended = time.perf_counter()
            else:
                begun = time.perf_counter()
    return tokens / (ended - begun)


def main() -> None:
    """Measure, print and write."""
    data = shipped_rows()
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(model=SMOLLM2, data=data, max_tokens=SOURCE.max_tokens, folder=Path(folder))
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
    told = {"machine": machine(), "batch_size": RECIPE.batch_size, "rows": rows}
    (RESULTS / "micro_batch.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
