"""Milliseconds to swap one trial out and another in: state to disk, state from disk to the next step ready.

    python benchmarks/resume.py [--size tiny|135m] [--quick]

At rank 16, all linear layers, two trials in turn, a step of each between swaps. The packed engine writes and
verifies checksums, as it does in a search; PEFT and Trainer have none. In one process by hand: Trainer
saves its checkpoint, the adapter is unloaded, the other one is wrapped and `resume_from_checkpoint` goes
on. In a process per trial: the same, and its end, imports and the loading of the model. Files stay in the
operating system's cache. Medians and ranges; some three minutes on two cores. Writes `results/resume.json`.
`--quick` measures tiny with few swaps and writes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jobs import RECIPE, RESULTS, SMOLLM2, TINY, job, machine, shipped_rows, trial
from sweep.data.encode import Encoded, encode
from sweep.engines import checkpoint
from sweep.engines.model import Base, ModelSource
from sweep.engines.shared_base import SharedBase
from sweep.engines.slot import Slot, begin, load_adapter
from trainer import Times, Work, adapted, features, in_new_process, in_order, now, trainer_for, write_job

SIZES: dict[str, ModelSource] = {"tiny": TINY, "135m": SMOLLM2}
SWAPS = {"tiny": 20, "135m": 6}
PROCESSES = 3
MAX_TOKENS = 48
PAIR = dataclasses.replace(RECIPE, batch_size=2)
TRIALS = ("a", "b")


class Swap(NamedTuple):
    """Seconds until a trial's state was on disk, and until the next one's first step was ready."""

    pause: float
    resume: float


class Measured(NamedTuple):
    """Swaps, bytes on disk of a trial, and where the last one lies."""

    swaps: list[Swap]
    state_bytes: int
    checkpoint: Path


def by_packed(base: Base, rows: Sequence[Encoded], folder: Path, swaps: int) -> Measured:
    """By the parts that the engine pauses and goes on with."""
    shared, found = SharedBase(base.model), []
    horizon = (swaps + 4) * PAIR.batch_size
    paths: dict[str, tuple[int, Path]] = {}
    for number in range(swaps + 2):
        of = trial(TRIALS[number % 2], PAIR)
        start, path = paths.get(of.id, (0, None))
        given = job(of, horizon, start=start, checkpoint=path and str(path))
        begun = now()
        adapter = shared.new_adapter(of.recipe)
        if path is None:
            begin(adapter, of.seed)
            slot = Slot(given, rows, adapter)
        else:
            state = checkpoint.verified(path)
            load_adapter(adapter, state)
            slot = Slot(given, rows, adapter)
            slot.load_moments(state)
        ready = now()
        shared.learn([slot.take(len(slot.waiting))], [slot.weight])
        slot.step()
        ended = now()
        target = folder / of.id / str(slot.examples_seen)
        with checkpoint.writing(target) as aside:
            slot.save(aside, "base")
        found.append(Swap(pause=now() - ended, resume=ready - begun))
        paths[of.id] = (slot.examples_seen, target)
    shared.close()
    return Measured(found[2:], _bytes(target), target)


def by_trainer(base: Base, rows: Sequence[Encoded], folder: Path, swaps: int) -> Measured:
    """By hand in one process."""
    found = []
    for number in range(swaps + 2):
        step = number // 2 + 1
        own = folder / TRIALS[number % 2]
        todo = work(rows, swaps, step)
        begun = now()
        with adapted(base, todo.recipe, todo.seed) as model:
            times = Times(step)
            trainer = trainer_for(
                model, base.tokenizer, todo, own, [times], save_strategy="steps", save_steps=1
            )
            trainer.train(resume_from_checkpoint=str(own / f"checkpoint-{step - 1}") if step > 1 else None)
            trained = now()
        unloading = now() - trained
        assert times.ready is not None
        assert times.saved is not None
        pause = times.saved - times.steps[-1] + unloading
        found.append(Swap(pause=pause, resume=times.ready - begun))
    last = own / f"checkpoint-{step}"
    return Measured(found[2:], _bytes(last), last)


def by_process(
    source: ModelSource, rows: Sequence[Encoded], state: Path, by_hand: Sequence[Swap]
) -> list[Swap]:
    """In a process per trial that goes on from Trainer's checkpoint; its own takes as long as by hand."""
    step = int(state.name.rpartition("-")[2])
    saving = statistics.median(swap.pause for swap in by_hand)
    given = write_job(state.parent / "job.json", source, work(rows, 2 * step, step + 1), state)
    found = []
    for _ in range(PROCESSES):
        ends = in_new_process(given)
        found.append(Swap(pause=saving + ends["ended"] - ends["trained"], resume=ends["ready"]))
    return found


def work(rows: Sequence[Encoded], swaps: int, step: int) -> Work:
    """A trial by hand up to this step."""
    batch = PAIR.batch_size
    horizon = (swaps + 4) * batch
    return Work(recipe=PAIR, seed=0, features=features(in_order(rows, 0, horizon)), stop=step * batch)


def measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """A row per method."""
    source, swaps = SIZES[name], 4 if quick else SWAPS[name]
    base = source.load()
    rows = encode(shipped_rows().examples["train"][:64], base.tokenizer, max_tokens=MAX_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        ours = by_packed(base, rows, Path(folder) / "packed", swaps)
        theirs = by_trainer(base, rows, Path(folder) / "trainer", swaps)
        alone = by_process(source, rows, theirs.checkpoint, theirs.swaps)
    reference = _median([sum(swap) for swap in ours.swaps])
    return [
        row(name, "packed", ours.swaps, ours.state_bytes, reference),
        row(name, "PEFT and Trainer", theirs.swaps, theirs.state_bytes, reference),
        row(name, "process per trial", alone, theirs.state_bytes, reference),
    ]


def row(size: str, method: str, swaps: Sequence[Swap], state_bytes: int, reference: float) -> dict[str, Any]:
    """Milliseconds."""
    whole = [sum(swap) for swap in swaps]
    return {
        "size": size,
        "method": method,
        "swaps": len(swaps),
        "pause_ms": round(1000 * _median([swap.pause for swap in swaps]), 1),
        "resume_ms": round(1000 * _median([swap.resume for swap in swaps]), 1),
        "swap_ms": round(1000 * _median(whole), 1),
        "range_ms": [round(1000 * min(whole), 1), round(1000 * max(whole), 1)],
        "times_packed": round(_median(whole) / reference, 2),
        "state_bytes": state_bytes,
    }


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table; who is faster than the packed engine is marked."""
    print(
        f"{'milliseconds':<26}{'pause':>10}{'resume':>10}{'swap':>10}{'range':>22}{'to packed':>11}{'MB':>8}"
    )
    for line in rows:
        low, high = line["range_ms"]
        print(
            f"{line['size']:<6}{line['method']:<20}{line['pause_ms']:>10.1f}{line['resume_ms']:>10.1f}"
            f"{line['swap_ms']:>10.1f}{f'{low:.1f} to {high:.1f}':>22}{line['times_packed']:>11.2f}"
            f"{line['state_bytes'] / 1e6:>8.1f}{'  packed loses' if line['times_packed'] < 1 else ''}"
        )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), help="this one only, printed and not written")
    parser.add_argument("--quick", action="store_true", help="few swaps, printed and not written")
    options = parser.parse_args()
    names = [options.size] if options.size else ["tiny"] if options.quick else list(SIZES)
    rows = [line for name in names for line in measure(name, quick=options.quick)]
    show(rows)
    if not options.quick and options.size is None:
        told = {"machine": machine(), "rank": PAIR.lora_rank, "rows": rows}
        (RESULTS / "resume.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
