"""How long the replies of a trial take: batches by length with a cache, against transformers' `generate`.

    python benchmarks/generation.py

64 rows of the shipped validation split, 48 tokens each at most, on SmolLM2-135M with a LoRA adapter of
rank 16. Three ways: the engines' own, the adapter under the packed engine's hooks; transformers' `generate`
on a PEFT model in batches of 16 rows in the order of the file, as most would write it; the same one row
at a time, on 8 of the rows and scaled to all of them. The ways take turns. The adapter is random and small,
so that replies are about the model's own; how many agree with those of the second way is counted, as
batches of another make-up differ in the last bits. Writes `results/generation.json`. Some ten minutes on
two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel

from jobs import RECIPE, RESULTS, SMOLLM2, job, machine, shipped_rows, trial
from sweep.data.encode import prompt_text
from sweep.data.example import Example
from sweep.engines.generate import generate
from sweep.engines.model import Base, peft_on_transformers
from sweep.engines.shared_base import SharedBase
from sweep.engines.slot import begin, save_adapter
from sweep.types import Asking, Prompt

ROWS = 64
TOKENS = 48
BATCH = 16
ALONE = 8
GOAL_SECONDS = 120.0

Way = Callable[[], list[str]]


def plainly(base: Base, rows: Sequence[Example], batch: int) -> list[str]:
    """What transformers' `generate` writes, in batches of the rows' own order."""
    tokenizer, found = base.tokenizer, list[str]()
    for first in range(0, len(rows), batch):
        texts = [prompt_text(row.messages[:-1], tokenizer) for row in rows[first : first + batch]]
        encoded = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        with torch.no_grad():
            tokens = cast(Any, base.model).generate(
                **encoded, max_new_tokens=TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new = tokens[:, encoded["input_ids"].shape[1] :]
        found += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return found


def ours(base: Base, shared: SharedBase, adapter: Any, asking: Asking) -> list[str]:
    """What the packed engine answers."""
    with shared.wearing(adapter):
        return [reply.text for reply in generate(*base, asking)]


def ways(rows: Sequence[Example], folder: Path) -> dict[str, Way]:
    """The three, with the same adapter on models of their own."""
    base, theirs = SMOLLM2.load(), SMOLLM2.load()
    shared = SharedBase(base.model)
    adapter = shared.new_adapter(RECIPE)
    begin(adapter, seed=0)
    adapter.B.data.copy_(1e-3 * torch.randn(adapter.B.shape, generator=torch.Generator().manual_seed(0)))
    save_adapter(adapter, job(trial("any"), 8), folder, SMOLLM2.identity)
    with peft_on_transformers():
        wrapped = Base(
            cast(Any, PeftModel.from_pretrained(theirs.model, str(folder)).eval()), theirs.tokenizer
        )
    prompts = [Prompt(row.id, tuple((t.role, t.content) for t in row.messages[:-1])) for row in rows]
    asking = Asking(tuple(prompts), TOKENS)
    return {
        "ours": lambda: ours(base, shared, adapter, asking),
        f"transformers, {BATCH} rows": lambda: plainly(wrapped, rows, BATCH),
        "transformers, one row, scaled": lambda: plainly(wrapped, rows[:ALONE], 1),
    }


def measured(given: dict[str, Way], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Seconds of every run by way, scaled to all rows, and what each wrote."""
    seconds: dict[str, list[float]] = {name: [] for name in given}
    texts: dict[str, list[str]] = {}
    for repeat in range(repeats):
        for name, way in given.items():
            begun = time.perf_counter()
            texts[name] = way()
            elapsed = time.perf_counter() - begun
            seconds[name].append(elapsed * ROWS / len(texts[name]))
            print(f"{repeat + 1} of {repeats}: {name}, {elapsed:.0f} s", flush=True)
    return seconds, texts


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line per way, and whether the goal is met."""
    print(f"\n{'way':<32}{'seconds':>9}  {'range':<16}{'against ours':>12}{'same replies':>14}")
    for row in rows:
        low, high = row["range"]
        print(
            f"{row['way']:<32}{row['seconds']:>9.1f}  {f'{low:.1f} to {high:.1f}':<16}"
            f"{row['seconds'] / rows[0]['seconds']:>12.2f}{row['same_as_ours']:>14}"
        )
    met = rows[0]["seconds"] < GOAL_SECONDS
    print(f"{ROWS} rows x {TOKENS} tokens within {GOAL_SECONDS:.0f} s: {'yes' if met else 'no'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way")
    parser.add_argument("--results", type=Path, default=RESULTS / "generation.json", help="the file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds, texts = measured(
            ways(shipped_rows().examples["validation"][:ROWS], Path(folder)), options.repeats
        )
    rows = [
        {
            "way": name,
            "seconds": statistics.median(runs),
            "range": [min(runs), max(runs)],
            "rows": len(texts[name]),
            "same_as_ours": sum(a == b for a, b in zip(texts[name], texts["ours"], strict=False)),
        }
        for name, runs in seconds.items()
    ]
    show(rows)
    facts = {"rows_asked": ROWS, "tokens_each": TOKENS, "repeats": options.repeats}
    options.results.write_text(json.dumps({"machine": machine(), **facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
