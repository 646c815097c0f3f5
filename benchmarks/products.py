"""Milliseconds of the adapters' products of a pass: one per trial, batched, and grouped.

    python benchmarks/products.py

Slots with the same number of tokens and one rank, the case that a batched product needs. Interleaved
repeats; writes benchmarks/results/products.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from jobs import RESULTS, machine

# Inputs, outputs, slots, tokens of all slots, rank.
CASES = (
    (64, 64, 16, 4096, 16),
    (64, 64, 16, 4096, 64),
    (256, 256, 8, 2048, 16),
    (576, 1536, 4, 1024, 16),
    (576, 1536, 4, 1024, 64),
    (576, 576, 8, 2048, 32),
)
REPEATS = 15
CALLS = 10


def ways(inputs: int, outputs: int, slots: int, tokens: int, rank: int) -> dict[str, Callable[[], object]]:
    """Each way to compute x A B for every slot."""
    each = tokens // slots
    x, a, b = (
        torch.randn(tokens, inputs),
        torch.randn(slots, inputs, rank),
        torch.randn(slots, rank, outputs),
    )
    y, ends = torch.empty(tokens, outputs), torch.arange(1, slots + 1, dtype=torch.int32) * each

    def one_per_trial() -> None:
        for part, out, down, up in zip(x.split(each), y.split(each), a.unbind(), b.unbind(), strict=True):
            torch.mm(part @ down, up, out=out)

    return {
        "one per trial": one_per_trial,
        "batched": lambda: torch.bmm(torch.bmm(x.view(slots, each, inputs), a), b),
        "grouped": lambda: functional.grouped_mm(functional.grouped_mm(x, a, offs=ends), b, offs=ends),
    }


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call, over several."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begun) / CALLS * 1e3


def main() -> None:
    """Measure, print and write."""
    rows = []
    for case in CASES:
        calls = ways(*case)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(REPEATS):
            for name, call in calls.items():
                times[name].append(milliseconds(call))
        medians = {name: statistics.median(found) for name, found in times.items()}
        row = {
            **dict(zip(("inputs", "outputs", "slots", "tokens", "rank"), case, strict=True)),
            "milliseconds": {name: round(value, 3) for name, value in medians.items()},
            "range": {name: [round(min(t), 3), round(max(t), 3)] for name, t in times.items()},
            "ratio to batched": round(medians["one per trial"] / medians["batched"], 2),
        }
        print(row)
        rows.append(row)
    told = {"machine": machine(), "rows": rows}
    (RESULTS / "products.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
