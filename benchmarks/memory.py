"""How many trials fit in a given memory: slots of the packed engine against a process for each trial.

    python benchmarks/memory.py

Measured on SmolLM2-135M in fp32, each figure in a fresh process: the peak of the packed engine with 1, 4, 8
and 16 slots at rank 16 in passes of 1,024 tokens, with 1 slot in passes of 256, and that of a bare PEFT
loop with 8 rows or 1 row of 64 tokens at once. Two steps each, so that moments and activations are there
together. Loading has a peak of its own; the larger one counts.

One more trial costs a slot its weights, gradients and two moments, 16 bytes a number, and one row in each
pass, the least that the engine takes of it. What a pass keeps for its backward grows with its tokens; how
much, two measured passes say. What fits is counted with one row at once for both ways, and in favour of
processes: what is mapped from files, on a CPU even the model's weights, is there once for all of them.

Computed, not measured, for other shapes: weights, adapters on all linear layers and activations alone, as
on a device, where each process holds the model; without its context, some 0.5 GiB for each. Writes
`results/memory.json`. Some six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from jobs import RECIPE, RESULTS, SMOLLM2, Jobs, job, machine, require_packing, shipped_rows, trial
from sweep.types import Capacity, Done, Job, Report, View, Wait

GIB = 2**30
MEMORIES = (4, 8, 16, 24, 80)
RANKS = (8, 16, 64)
# Slots and tokens of a pass.
PACKED = ((1, 256), (1, 1024), (4, 1024), (8, 1024), (16, 1024))
RANK = 16
BATCH = 16
MAX_TOKENS = 64
AT_ONCE = (8, 1)
# Tokens of an answer among those of these rows.
LEARNED = 0.6


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a Llama-like model. keys: width of all key heads. size: bytes of a weight."""

    hidden: int
    layers: int
    keys: int
    inner: int
    vocabulary: int
    tied: bool
    size: int

    @property
    def base(self) -> int:
        """Bytes of the frozen weights."""
        layer = 2 * self.hidden**2 + 2 * self.hidden * self.keys + 3 * self.hidden * self.inner
        return self.size * (self.layers * layer + (2 - self.tied) * self.vocabulary * self.hidden)

    def trial(self, rank: int) -> int:
        """Bytes of one trial's weights, gradients and two moments, in fp32."""
        widths = 2 * (2 * self.hidden) + 2 * (self.hidden + self.keys) + 3 * (self.hidden + self.inner)
        return 4 * 4 * rank * self.layers * widths

    def activations(self, tokens: int, learned: int) -> int:
        """Bytes that a pass keeps for its backward.

        Of each layer and token what goes into norms (in fp32), projections, attention and the gate; of
        each learned token logits, their exponentials and their gradient.
        """
        layer = 4 * 2 * self.hidden
        layer += self.size * (2 * self.hidden + 3 * self.hidden + 2 * self.keys + 4 * self.inner)
        return tokens * self.layers * layer + learned * self.vocabulary * (2 * self.size + 4)


SMALL = Shape(hidden=576, layers=30, keys=192, inner=1536, vocabulary=49152, tied=True, size=4)
SHAPES = {
    "135M (SmolLM2), fp32": SMALL,
    "0.5B (Qwen2.5), bf16": Shape(
        hidden=896, layers=24, keys=128, inner=4864, vocabulary=151936, tied=True, size=2
    ),
    "1.5B (Qwen2.5), bf16": Shape(
        hidden=1536, layers=28, keys=256, inner=8960, vocabulary=151936, tied=True, size=2
    ),
    "8B (Llama 3.1), bf16": Shape(
        hidden=4096, layers=32, keys=1024, inner=14336, vocabulary=128256, tied=False, size=2
    ),
}


# In a process of its own


def taken() -> dict[str, int]:
    """Bytes of this process now, and at most since the mark was last reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon", "from_files": "RssFile"}
    found = {name: int(lines[line].split()[0]) * 1024 for name, line in names.items()}
    return {**found, "unique": psutil.Process().memory_full_info().uss}


def remark() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


class Watched(Jobs):
    """Looks at the memory when the first job is asked for: the model is there then, and nothing else."""

    loaded: Mapping[str, int] | None = None

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if self.loaded is None:
            self.loaded = taken()
            remark()
        return super().next(capacity)


def packed(slots: int, tokens: int) -> dict[str, Any]:
    """Of the packed engine with so many trials in training, in passes of so many tokens."""
    from sweep.engines.inputs import Inputs
    from sweep.engines.packed import Packed

    recipe = replace(RECIPE, lora_rank=RANK, batch_size=BATCH)
    jobs = [job(trial(str(i), recipe), 2 * BATCH, evaluation=View("validation", 1)) for i in range(slots)]
    source = Watched(jobs)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(model=SMOLLM2, data=shipped_rows(), max_tokens=MAX_TOKENS, folder=Path(folder))
        engine = Packed(inputs=inputs, slots=slots, tokens=tokens)
        for event in engine.run(source):
            if isinstance(event, Report) and event.state != "reached":
                raise RuntimeError(f"Job {event.job} ended as {event.state}: {event.error}")
        return {"loaded": source.loaded, "trained": taken()}


def alone(at_once: int, max_tokens: int) -> dict[str, Any]:
    """Of a bare PEFT loop with so many rows at once."""
    import torch
    from peft import LoraConfig, get_peft_model

    from sweep.data.encode import encode
    from sweep.engines.evaluate import collate
    from sweep.engines.model import peft_on_transformers

    model, tokenizer = SMOLLM2.load()
    examples = shipped_rows().examples["train"][: 2 * at_once]
    rows = encode(examples, tokenizer, max_tokens=max_tokens)
    loaded = taken()
    remark()
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=32, target_modules="all-linear")
    with peft_on_transformers():
        adapted = get_peft_model(model, lora)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RECIPE.learning_rate)
    for start in (0, at_once):
        batch = collate(rows[start : start + at_once], int(tokenizer.pad_token_id))
        adapted(**batch._asdict()).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return {"loaded": loaded, "trained": taken()}


# Together


def fresh(kind: str, count: int, tokens: int) -> dict[str, Any]:
    """What a new process of this kind takes."""
    command = [sys.executable, __file__, "--child", kind, str(count), str(tokens)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    loaded, trained = found["loaded"], found["trained"]
    peak = max(loaded["peak"], trained["peak"])
    found |= {"kind": kind, "count": count, "tokens": tokens, "peak": peak}
    found["own"] = trained["peak"] - trained["from_files"]
    numbers = (loaded["resident"], loaded["peak"], trained["peak"], found["own"], trained["unique"])
    print(
        f"{kind:<8}{count:>6}{tokens:>8}" + "".join(f"{number / GIB:>16.2f}" for number in numbers),
        flush=True,
    )
    return found


def one_more(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Bytes of one more slot, one more token in a pass, and the rest, by the peaks of packed training."""
    peaks = {(row["count"], row["tokens"]): row["trained"]["peak"] for row in rows if row["kind"] == "packed"}
    small, large = min(tokens for _, tokens in peaks), max(tokens for _, tokens in peaks)
    most = max(slots for slots, _ in peaks)
    token = (peaks[1, large] - peaks[1, small]) / (large - small)
    slot = (peaks[most, large] - peaks[1, large]) / (most - 1)
    return {"slot": slot, "token": token, "rest": peaks[1, large] - slot - large * token}


def counts(once: float, each: float, process_once: float, process: float) -> dict[str, Any]:
    """Slots and processes that fit beside what is there once, by GiB of memory."""

    def fits(gib: int, beside: float, size: float) -> int:
        return max(0, int((gib * GIB - beside) // size))

    return {
        str(gib): {"slots": fits(gib, once, each), "processes": fits(gib, process_once, process)}
        for gib in MEMORIES
    }


def measured(rows: Sequence[Mapping[str, Any]], more: Mapping[str, float]) -> list[dict[str, Any]]:
    """What fits by the peaks at one rank; another's differs by its weights, gradients and moments."""
    (single,) = (row for row in rows if row["kind"] == "alone" and row["count"] == 1)
    found = []
    for rank in RANKS:
        change = SMALL.trial(rank) - SMALL.trial(RANK)
        each = more["slot"] + change + MAX_TOKENS * more["token"]
        fit = counts(more["rest"], each, single["trained"]["from_files"], single["own"] + change)
        found.append({"shape": next(iter(SHAPES)), "rank": rank, "slot_bytes": each, "fits": fit})
    return found


def computed() -> list[dict[str, Any]]:
    """The same by sums alone. A process has logits for all of a row's tokens, a slot where it learns."""
    found = []
    for name, shape in SHAPES.items():
        for rank in RANKS:
            each = shape.trial(rank) + shape.activations(MAX_TOKENS, int(LEARNED * MAX_TOKENS))
            process = shape.base + shape.trial(rank) + shape.activations(MAX_TOKENS, MAX_TOKENS)
            fit = counts(shape.base, each, 0, process)
            found.append({"shape": name, "rank": rank, "slot_bytes": each, "fits": fit})
    return found


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Slots and processes that fit, a line per row."""
    print(f"\n{title}\n{'':<30}{'MiB a slot':>12}" + "".join(f"{f'{gib} GiB':>14}" for gib in MEMORIES))
    for row in rows:
        cells = "".join(f"{fit['slots']:>8} :{fit['processes']:>4}" for fit in row["fits"].values())
        print(f"{row['shape']:<24}r={row['rank']:<4}{row['slot_bytes'] / 2**20:>12.0f}{cells}")


def main() -> None:
    """Measure, compute, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=16, help="slots at most, at least 2")
    parser.add_argument("--results", type=Path, default=RESULTS / "memory.json", help="the file to write")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    require_packing()
    if options.child:
        kind, *numbers = options.child
        print(json.dumps({"packed": packed, "alone": alone}[kind](*map(int, numbers))))
        return
    heads = ("loaded, GiB", "peak of loading", "of training", "not from files", "unique, end")
    print(f"{'':<8}{'slots':>6}{'tokens':>8}" + "".join(f"{head:>16}" for head in heads))
    rows = [fresh("alone", count, MAX_TOKENS) for count in AT_ONCE]
    rows += [fresh("packed", slots, tokens) for slots, tokens in PACKED if slots <= options.most]
    more = one_more(rows)
    sums = {"slot": SMALL.trial(RANK), "token": SMALL.activations(1000, int(LEARNED * 1000)) / 1000}
    for name, value in sums.items():
        print(f"one more {name}: measured {more[name] / 2**20:.2f} MiB, computed {value / 2**20:.2f}")
    by_measure, by_sum = measured(rows, more), computed()
    show("Measured: slots : processes, each with one row at once", by_measure)
    show("Computed, the model in each process: slots : processes", by_sum)
    shapes = {name: asdict(shape) for name, shape in SHAPES.items()}
    facts = {"machine": machine(), "rank": RANK, "max_tokens": MAX_TOKENS, "shapes": shapes}
    found = {"processes": rows, "one_more": more, "measured": by_measure, "computed": by_sum}
    options.results.write_text(json.dumps({**facts, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
