"""A table of whole learning curves of every configuration of a grid, for `search_replay.py`.

    python benchmarks/record_curves.py

128 LoRA configurations of the tiny random Llama on the shipped data, one data order, one horizon. Writes
`data/curves.json.gz`: per configuration the validation loss at each point and the tokens trained up to
it, prompts included; tokens of one evaluation; the same bytes for the same numbers.
`--configurations 6 --table /tmp/curves.json.gz` tries it on a few that lie all over the grid.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
import json
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs import RECIPE as SHARED
from jobs import TINY, shipped_rows
from sweep.engines.inputs import EncodedRows, Inputs
from sweep.engines.packed import Packed
from sweep.types import Capacity, Done, Engine, Job, Recipe, Report, Trial, View, Wait

TABLE = Path(__file__).parent / "data" / "curves.json.gz"
HORIZON = 1152
# Multiples of the largest batch that hold the ladders of eta 2, 3 and 4.
POINTS = (32, 64, 96, 128, 192, 288, 384, 576, 768, 864, 1056, HORIZON)
EVALUATION = View("validation", 64)
# The learning rate varies before batch and rank do, so that jobs of one shape follow each other.
GRID: Mapping[str, Sequence[float]] = {
    "batch_size": (4, 8, 16, 32),
    "lora_rank": (4, 8, 16, 64),
    # A model that knows nothing wants high rates: the best lies near 3e-3, and 3e-2 is too high.
    "learning_rate": (1e-4, 2.3e-4, 5.1e-4, 1.2e-3, 2.6e-3, 5.9e-3, 1.3e-2, 3e-2),
}
RECIPE = dataclasses.replace(SHARED, learning_rate=2.3e-4, warmup_fraction=0.1)
MAX_TOKENS = 96


def make_engine(inputs: Inputs) -> Engine:
    """The engine that trains the table."""
    return Packed(inputs=inputs, slots=8, tokens=2048)


@dataclass
class Curve:
    """What is known of one configuration. losses, tokens: at the points reached, tokens from the start on.

    diverged: examples and tokens at which it did.
    """

    trial: Trial
    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    diverged: tuple[int, int] | None = None
    checkpoint: str | None = None

    @property
    def whole(self) -> bool:
        """Nothing is left to train."""
        return self.diverged is not None or len(self.losses) == len(POINTS)

    @property
    def spent(self) -> int:
        """Tokens trained up to the last point."""
        return self.tokens[-1] if self.tokens else 0

    @property
    def job(self) -> Job:
        """To the next point, from the last one's checkpoint."""
        done = len(self.losses)
        return Job(
            id=f"{self.trial.id}@{POINTS[done]}",
            attempt=0,
            trial=self.trial,
            start=POINTS[done - 1] if done else 0,
            stop=POINTS[done],
            horizon=HORIZON,
            checkpoint=self.checkpoint,
            train=View("train"),
            evaluation=EVALUATION,
        )

    def add(self, report: Report) -> None:
        """Take a report in and remove the state that it makes needless."""
        if report.state == "diverged":
            self.diverged = (report.examples_seen, self.spent + report.tokens)
        elif report.state == "reached" and report.validation_loss is not None:
            self.losses.append(round(report.validation_loss, 6))
            self.tokens.append(self.spent + report.tokens)
        else:
            raise RuntimeError(f"The table would lack {self.trial.recipe}: {report.state}, {report.error}")
        if self.checkpoint:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
        self.checkpoint = report.checkpoint
        if self.whole and self.checkpoint:
            shutil.rmtree(self.checkpoint, ignore_errors=True)


class Curves:
    """A source that takes every configuration from point to point, those already begun first."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        trials = [
            Trial(id=str(number), number=number, recipe=recipe, seed=0, base=TINY.identity)
            for number, recipe in enumerate(recipes)
        ]
        self.curves = {trial.id: Curve(trial) for trial in trials}
        self._ready = deque(self.curves.values())
        self._out = 0

    def next(self, capacity: Capacity) -> Job | Wait | Done:
        if not self._ready:
            return Wait() if self._out else Done()
        self._out += 1
        return self._ready.popleft().job

    def cancelled(self) -> frozenset[str]:
        return frozenset()

    def record(self, report: Report) -> Curve:
        """The curve with this report on it; its next job goes out before any other."""
        self._out -= 1
        curve = self.curves[report.trial]
        curve.add(report)
        if not curve.whole:
            self._ready.appendleft(curve)
        return curve


def recipes(count: int | None) -> list[Recipe]:
    """The grid's recipes in its order, or `count` of them that lie evenly in it."""
    combinations = list(itertools.product(*GRID.values()))
    picked = range(len(combinations))
    if count is not None:
        picked = sorted({number * len(combinations) // count for number in range(count)})
    return [
        dataclasses.replace(RECIPE, **dict(zip(GRID, combinations[i], strict=True)))  # type: ignore[arg-type]
        for i in picked
    ]


def evaluation_tokens(inputs: Inputs) -> int:
    """Tokens that one evaluation reads, prompts included."""
    rows = EncodedRows(inputs, inputs.model.load().tokenizer).view(EVALUATION)
    return sum(len(row.input_ids) for row in rows)


def record(source: Curves, engine: Engine) -> None:
    """Train all that the source hands out; a line for each configuration that is done."""
    begun, done = time.monotonic(), 0
    for event in engine.run(source):
        if not isinstance(event, Report):
            continue
        curve = source.record(event)
        if not curve.whole:
            continue
        done += 1
        values = " ".join(f"{name}={getattr(curve.trial.recipe, name):g}" for name in GRID)
        ending = f"diverged at {curve.diverged[0]}" if curve.diverged else f"loss {curve.losses[-1]:.4f}"
        print(f"{done}/{len(source.curves)} {time.monotonic() - begun:.0f} s {values}: {ending}", flush=True)


def table(source: Curves, inputs: Inputs) -> dict[str, object]:
    """All that a replay needs, plain JSON."""
    rows = [
        {
            **{name: getattr(curve.trial.recipe, name) for name in GRID},
            "losses": curve.losses,
            "tokens": curve.tokens,
            "diverged": curve.diverged,
        }
        for curve in source.curves.values()
    ]
    return {
        "model": TINY.identity,
        "data_fingerprint": inputs.data.fingerprint,
        "recipe": dataclasses.asdict(RECIPE),
        "horizon": HORIZON,
        "points": POINTS,
        "evaluation_rows": EVALUATION.rows,
        "evaluation_tokens": evaluation_tokens(inputs),
        "grid": GRID,
        "configurations": rows,
    }


def main() -> None:
    """Record, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--configurations", type=int, help="that many only, instead of the whole grid")
    parser.add_argument("--table", type=Path, default=TABLE, help="the file to write")
    options = parser.parse_args()
    source = Curves(recipes(options.configurations))
    data = shipped_rows()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(model=TINY, data=data, max_tokens=MAX_TOKENS, folder=Path(folder))
        engine = make_engine(inputs)
        record(source, engine)
        engine.close()
        text = json.dumps(table(source, inputs), separators=(",", ":"))
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{options.table}: {options.table.stat().st_size} bytes")


if __name__ == "__main__":
    main()
