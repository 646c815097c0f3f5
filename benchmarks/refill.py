"""How busy the slots of the packed engine are when seven trials in ten stop at the first rung.

    python benchmarks/refill.py

64 trials of the tiny random Llama on the shipped data, rungs at a third and at the end, 30% of them
promoted by a rule fixed beforehand, 8 slots. Against the same jobs as gangs: 8 trials begin together, the
next 8 when all of them have ended, as where a fixed set of jobs is trained together. Twice: all trials
with the same batch, so that a gang stays in step, and batches of 4, 8 and 16, so that it doesn't. The two
ways take turns, with one engine, after a run that pays for loading. Writes `results/refill.json`. Some
four minutes on two cores.

Occupancy is counted at the source: jobs handed out less reports received, as a share of the slots, at the
first step of each pass. A pass is a stretch of steps in which no trial steps twice and none reports; the
pass budget holds every slot's batch, so each busy slot steps once in each. It is given until the source
runs dry, which is when nothing is left to hand out, and for the whole run. Tokens per second are trained
ones, prompts included, by the wall clock from the first hand-out to the last report: scoring, saving and
refilling are in it. Where arithmetic is the limit, as on a CPU, an empty slot costs nothing but its share
of a pass's fixed cost, so that tokens per second differ by less than occupancy does.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs import RECIPE, RESULTS, TINY, Jobs, Rungs, job, machine, require_packing, shipped_rows, trial
from sweep.engines.inputs import Inputs
from sweep.engines.packed import Packed
from sweep.types import Report, Trial

SLOTS = 8
TOKENS = 8192
MAX_TOKENS = 64
# Multiples of every batch.
RUNGS = (96, 288)
PROMOTED = 0.3
BATCHES = {"equal": (8,), "mixed": (4, 8, 16)}
WAYS = {"refill": None, "gangs": SLOTS}
GOAL = 0.9


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run. occupancy: until the source was dry, and of all passes."""

    occupancy: float
    occupancy_of_all: float
    passes: int
    passes_until_dry: int
    tokens: int
    seconds: float
    tokens_per_second: float


def trials(count: int, batches: Sequence[int]) -> list[Trial]:
    """So many, of ranks 8 and 16 and these batches in turn."""
    return [
        trial(str(i), replace(RECIPE, batch_size=batches[i % len(batches)], lora_rank=(8, 16)[i // 3 % 2]))
        for i in range(count)
    ]


def source_of(given: Sequence[Trial], together: int | None) -> Rungs:
    """The trials' climb. The same trials are promoted in every run, at random places."""
    drawn = random.Random(0).sample([one.id for one in given], round(PROMOTED * len(given)))
    return Rungs(given, rungs=RUNGS, promoted=drawn, together=together)


def measured(engine: Packed, source: Rungs) -> Measured:
    """One run of the engine over the source."""
    begun, tokens = time.perf_counter(), 0
    busy: list[int] = []
    until_dry = 0
    stepped: set[str] = set()
    for event in engine.run(source):
        if isinstance(event, Report):
            source.record(event)
            tokens += event.tokens
            stepped.clear()
            continue
        if not stepped or event.job in stepped:
            stepped.clear()
            busy.append(source.out)
            if not source.dry:
                until_dry = len(busy)
        stepped.add(event.job)
    seconds = time.perf_counter() - begun
    return Measured(
        occupancy=statistics.mean(busy[:until_dry]) / SLOTS,
        occupancy_of_all=statistics.mean(busy) / SLOTS,
        passes=len(busy),
        passes_until_dry=until_dry,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )


def repeated(inputs: Inputs, count: int, repeats: int) -> dict[tuple[str, str], list[Measured]]:
    """Runs by batches and way, which take turns."""
    engine = Packed(inputs=inputs, slots=SLOTS, tokens=TOKENS)
    for _ in engine.run(Jobs([job(trial("warm up"), RUNGS[0])])):
        pass
    runs: dict[tuple[str, str], list[Measured]] = {}
    for repeat in range(repeats):
        for batches, sizes in BATCHES.items():
            for way, together in WAYS.items():
                shutil.rmtree(inputs.folder, ignore_errors=True)
                found = measured(engine, source_of(trials(count, sizes), together))
                runs.setdefault((batches, way), []).append(found)
                print(f"{repeat + 1} of {repeats}: {batches} {way}, {found.seconds:.0f} s", flush=True)
    engine.close()
    return runs


def row_of(batches: str, way: str, runs: Sequence[Measured]) -> dict[str, Any]:
    """The medians of the runs and the range of their speed. Passes are the same in each."""
    rates = [run.tokens_per_second for run in runs]
    return {
        "batches": batches,
        "way": way,
        **asdict(runs[0]),
        "seconds": statistics.median(run.seconds for run in runs),
        "tokens_per_second": statistics.median(rates),
        "range": [min(rates), max(rates)],
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line per way, and whether the goal is met."""
    print(f"\n{'batches':<9}{'way':<8}{'until dry':>10}{'all':>7}{'passes':>8}{'tokens/s':>10}  (range)")
    for row in rows:
        low, high = row["range"]
        print(
            f"{row['batches']:<9}{row['way']:<8}{row['occupancy']:>10.1%}{row['occupancy_of_all']:>7.0%}"
            f"{row['passes']:>8}{row['tokens_per_second']:>10.0f}  ({low:.0f} to {high:.0f})"
        )
    speed = {(row["batches"], row["way"]): row["tokens_per_second"] for row in rows}
    for batches in BATCHES:
        ratio = speed[batches, "refill"] / speed[batches, "gangs"]
        print(f"{batches}: refill trains {ratio:.2f}x the tokens per second of gangs")
    met = all(row["occupancy"] > GOAL for row in rows if row["way"] == "refill")
    print(f"over {GOAL:.0%} until dry with refill: {'yes' if met else 'no'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=64, help="that many")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way")
    parser.add_argument("--results", type=Path, default=RESULTS / "refill.json", help="the file to write")
    options = parser.parse_args()
    require_packing()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(
            model=TINY, data=shipped_rows(), max_tokens=MAX_TOKENS, folder=Path(folder) / "checkpoints"
        )
        runs = repeated(inputs, options.trials, options.repeats)
    rows = [row_of(batches, way, found) for (batches, way), found in runs.items()]
    show(rows)
    facts = {"trials": options.trials, "slots": SLOTS, "rungs": RUNGS, "promoted": PROMOTED}
    text = json.dumps({"machine": machine(), **facts, "repeats": options.repeats, "rows": rows}, indent=1)
    options.results.write_text(text + "\n")


if __name__ == "__main__":
    main()
