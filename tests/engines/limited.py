"""Two trials in the packed engine while the process may take only so much more memory.

    python -m tests.engines.limited FOLDER MEGABYTES

Prints each trial's state, error and validation loss, and how many tokens and trials a pass still holds, as
JSON. MEGABYTES: none for no limit.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from sweep.engines.packed import Packed
from tests.contracts.engine import RECIPE, job, reports
from tests.engines.conftest import TINY, tiny_inputs


def main(folder: Path, megabytes: str) -> None:
    """Warm up on short passes, close the door, train."""
    torch.set_num_threads(1)
    inputs = replace(tiny_inputs(folder), model=replace(TINY, hidden_size=256))
    engine = Packed(inputs=inputs, slots=2, tokens=8192)
    short = replace(RECIPE, lora_dropout=0.0, batch_size=1)
    reports(engine, job(0, 1, trial="short", recipe=short))
    if megabytes != "none":
        limit = psutil.Process().memory_info().vms + int(megabytes) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    large = replace(short, batch_size=32)
    found = reports(engine, *(job(0, 64, trial=name, recipe=large, horizon=64) for name in "ab"))
    told = [
        {"state": report.state, "error": report.error, "loss": report.validation_loss} for report in found
    ]
    print(json.dumps({"trials": told, "tokens": engine._tokens, "slots": engine._most}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
