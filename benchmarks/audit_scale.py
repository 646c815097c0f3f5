"""Seconds and memory of `python -m sweep.audit` by rows, step by step: reading, dealing into splits, checks.

    python benchmarks/audit_scale.py [rows ...]

Support conversations from templates, each with facts of its own; every twentieth is an earlier one with
another closing, one in a hundred is repeated word for word. The command's own path runs in a new process for
each size; its steps are timed where it calls them. Memory is the process's highest so far, so a step shows by
how much it raised it; imports and the tokenizer's loading stand apart. 10,000 and 100,000 rows unless told
otherwise; some eight minutes on two cores. Writes `results/audit_scale.json`.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

SIZES = (10_000, 100_000)
FEWEST = 500
AIM_SECONDS = {10_000: 60}
AIM_MB = {100_000: 1000}
# Where the command looks its steps up.
PLACES = {
    "sweep.assembly": ("load", "split"),
    "sweep.data.audit.audit": (
        "look_alikes",
        "enough_rows",
        "exact_repeats",
        "near_repeats",
        "leaks",
        "distinct_answers",
        "vendi",
        "compression",
        "distinct_pairs",
        "openings",
        "styles",
        "intents",
        "smallest_intent",
        "edge_cases",
        "personal_data",
        "mislabelled",
        "conflicts",
        "truncated",
    ),
    "sweep.engines.model:PackagedGguf": ("tokenizer",),
}
# What the tokenizer needs is imported before it is loaded, so that its time is the loading's.
IMPORTS = ("sweep.audit", "sweep.assembly", "sweep.data.audit.audit", "transformers")

NAMES = ("Ada", "Bela", "Cem", "Dora", "Emil", "Finn", "Gita", "Hana", "Igor", "Jara", "Kofi", "Lena", "Mira")
TOWNS = (
    "Aachen",
    "Bergen",
    "Cork",
    "Dover",
    "Essen",
    "Faro",
    "Ghent",
    "Hull",
    "Izmir",
    "Jena",
    "Kiel",
    "Linz",
)
THINGS = (
    "tent",
    "stove",
    "kayak",
    "rucksack",
    "sleeping bag",
    "torch",
    "rain jacket",
    "water filter",
    "hammock",
)
PARTS = (
    "zip",
    "strap",
    "buckle",
    "seam",
    "valve",
    "hose",
    "handle",
    "lining",
    "switch",
    "pump",
    "hinge",
    "mesh",
)
COLOURS = ("red", "green", "blue", "black", "orange", "grey", "yellow", "brown", "white", "purple", "olive")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TIMES = ("early in the morning", "around noon", "late in the afternoon", "shortly before closing")
SUBJECTS = {
    "delivery": (
        "where is my {colour} {thing}? it was meant for {town} on {day}",
        "The parcel with the {thing} leaves {town} on {day} and should reach you {time}, order {order}",
    ),
    "refund": (
        "I sent the {colour} {thing} back from {town} on {day} and the money for order {order} is not there",
        "Refunds for a {thing} take {number} days from the {day} on which {town} books it in",
    ),
    "repair": (
        "the {part} of my {thing} broke near {town}, can you mend it?",
        "Send the {thing} to the workshop in {town}: a new {part} is fitted within {number} days",
    ),
    "exchange": (
        "Could I swap order {order}, the {colour} {thing}, for a {other} one before {day}?",
        "A {thing} in {other} is kept for you in {town} until {day}; bring order {order} with you",
    ),
    "warranty": (
        "is the {part} of a {thing} covered? mine tore {time} on {day}",
        "The {part} is covered for {number} months; a photo of the {thing} and order {order} will do",
    ),
    "opening_hours": (
        "Is the {town} shop open {time} on {day}? I need a {thing}",
        "The shop in {town} opens {time} on {day}, and the {thing} counter an hour later",
    ),
    "stock": (
        "do you have the {colour} {thing} in {town}, my friend {name} bought one on {day}",
        "There are {number} in {town}, in {colour} and {other}; {name} at the desk keeps a {thing} for you",
    ),
    "address": (
        "Please send order {order} to {name} in {town} instead, I am away on {day}",
        "Order {order} with the {thing} now goes to {name} in {town} and arrives {time}",
    ),
    "invoice": (
        "i need the invoice of order {order} made out to {name}, {town}",
        "The invoice for the {colour} {thing} names {name} in {town} and was sent {time} on {day}",
    ),
    "complaint": (
        "This is UNACCEPTABLE!! The {part} of the {thing} from {town} failed on {day} already",
        "I am sorry about the {part}. {name} in {town} will replace the {thing} {time}, free of charge",
    ),
}
ASIDES = (
    "I bought it with {name} in {town}",
    "we leave for {town} on {day}",
    "the {colour} one was a present from {name}",
    "my neighbour {name} had the same with a {other_thing}",
    "it rained in {town} all {day}",
    "the {other_part} is fine, by the way",
    "I rang {time} and nobody in {town} answered",
    "{name} told me to write here",
    "there is also a {other_thing} in the order",
    "it was {number} degrees when I used it",
)
NOTES = (
    "Keep the {other_part} dry until then",
    "{name} has made a note of it",
    "A {other_thing} can be handed in at the same time",
    "On {day} the desk in {town} is busy, so come {time}",
    "If the {colour} one is not right, the {other} one can be had as well",
    "You will get a message from {name} {time}",
    "The {other_part} is not affected",
    "Nothing has to be paid for the {other_thing}",
)
CLOSINGS = ("Thanks", "thx", "Many thanks in advance", "Please hurry", "cheers", "Best regards from {town}")


def conversations(count: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """Rows in the product's own layout."""
    rng = random.Random(seed)
    kept: list[dict[str, str]] = []
    for number in range(count):
        again = rng.random() if kept else 1.0
        if again < 0.01:
            told = rng.choice(kept)
        elif again < 0.06:
            told = dict(rng.choice(kept), closing=rng.choice(CLOSINGS).format(town=rng.choice(TOWNS)))
        else:
            told = conversation(rng)
            kept.append(told)
        turns = [
            {"role": "user", "content": f"{told['prompt']} {told['closing']}"},
            {"role": "assistant", "content": told["response"]},
        ]
        yield {"id": f"row-{number}", "messages": turns, "intent": told["intent"]}


def conversation(rng: random.Random) -> dict[str, str]:
    """A new one: what is asked with asides in between, the answer with notes."""
    facts = {
        "name": rng.choice(NAMES),
        "town": rng.choice(TOWNS),
        "thing": rng.choice(THINGS),
        "other_thing": rng.choice(THINGS),
        "part": rng.choice(PARTS),
        "other_part": rng.choice(PARTS),
        "colour": rng.choice(COLOURS),
        "other": rng.choice(COLOURS),
        "day": rng.choice(DAYS),
        "time": rng.choice(TIMES),
        "number": rng.randrange(2, 40),
        "order": rng.randrange(10**6, 10**7),
    }
    intent = rng.choice(list(SUBJECTS))
    asked, answered = SUBJECTS[intent]
    said = [asked, *rng.sample(ASIDES, rng.randrange(4))]
    rng.shuffle(said)
    replied = [answered, *rng.sample(NOTES, rng.randrange(1, 4))]
    # Each sentence speaks of people and places of its own.
    prompt, response = (
        ". ".join(line.format(**(facts | drawn(rng))) for line in lines) for lines in (said, replied)
    )
    return {
        "prompt": prompt + rng.choice((".", "?", "", "!")),
        "closing": rng.choice(CLOSINGS).format(**facts),
        "response": f"{response}.",
        "intent": intent,
    }


def drawn(rng: random.Random) -> dict[str, object]:
    """Other facts for a sentence that is beside the point."""
    return {"name": rng.choice(NAMES), "town": rng.choice(TOWNS), "day": rng.choice(DAYS)}


class Steps:
    """Seconds of each step of the command, and by how many bytes it raised the process's peak."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, whose cost is kept under that name."""

        @wraps(call)
        def measured(*arguments: Any, **keywords: Any) -> Any:
            begun, before = time.perf_counter(), peak_bytes()
            result = call(*arguments, **keywords)
            self.found[name] = {
                "seconds": round(time.perf_counter() - begun, 2),
                "raised_mb": round((peak_bytes() - before) / 1e6),
            }
            return result

        return measured

    def watch(self) -> None:
        """Put the clock into each place where the command looks a step up."""
        for place, names in PLACES.items():
            module, _, owner = place.partition(":")
            holder = importlib.import_module(module)
            if owner:
                holder = getattr(holder, owner)
            for name in names:
                setattr(holder, name, self.timed(name, getattr(holder, name)))


def peak_bytes() -> int:
    """The most memory that this process has had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(path: Path) -> None:
    """Audit the file in this process, and print what it took as JSON."""
    begun = time.perf_counter()
    for name in IMPORTS:
        importlib.import_module(name)
    from sweep.audit import run
    from sweep.config import compose

    overrides = ["+experiment=support_bot", f"data.path={path}", "name=scale", "tracking.register=false"]
    overrides += [f"data.{key}_column=null" for key in ("required", "forbidden")] + ["data.slice_columns=[]"]
    config = compose(overrides)
    imports = {"seconds": round(time.perf_counter() - begun, 2), "raised_mb": round(peak_bytes() / 1e6)}
    steps = Steps()
    steps.watch()
    begun = time.perf_counter()
    run(config)
    whole = time.perf_counter() - begun
    told = {"imports": imports, "steps": steps.found, "seconds": whole, "bytes": peak_bytes()}
    print(f"\n{json.dumps(told)}")


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """One size, in a new process."""
    path = folder / f"{rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in conversations(rows))
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(path)]
    environment = {**os.environ, "SWEEP_CACHE": str(folder / "cache")}
    told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(told.stderr)
    found = json.loads(told.stdout.splitlines()[-1])
    checked = json.loads((folder / "runs" / "scale" / "audit.json").read_text("utf-8"))
    tokenizer = found["steps"].pop("tokenizer")
    work = found["seconds"] - tokenizer["seconds"]
    raised = found["bytes"] / 1e6 - found["imports"]["raised_mb"]
    aims = [work <= AIM_SECONDS.get(rows, math.inf), raised <= AIM_MB.get(rows, math.inf)]
    return {
        "rows": rows,
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "imports": found["imports"],
        "tokenizer": tokenizer,
        "steps": found["steps"],
        "seconds_without_imports_and_tokenizer": round(work, 1),
        "mb_above_imports": round(raised),
        "peak_mb": round(found["bytes"] / 1e6),
        "within_aims": all(aims),
        "messages": {one["verdict"]["check"]: one["verdict"]["message"] for one in checked["findings"]},
    }


def print_row(row: dict[str, Any]) -> None:
    """What one size took, the dearest steps first."""
    print(
        f"{row['rows']:,} rows, {row['file_mb']} MB: {row['seconds_without_imports_and_tokenizer']} s, "
        f"{row['mb_above_imports']} MB above imports, {row['peak_mb']} MB in all"
        f"{'' if row['within_aims'] else ' !'}"
    )
    parts = {"imports": row["imports"], "tokenizer": row["tokenizer"], **row["steps"]}
    for name, cost in sorted(parts.items(), key=lambda item: -item[1]["seconds"]):
        print(f"  {name:<20}{cost['seconds']:>8.2f} s{cost['raised_mb']:>+8} MB")


def main() -> None:
    """Measure, print and write."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
        return
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Thrown away: the first use of a packaged model converts its weights, once on a machine.
        measure(FEWEST, Path(folder))
        for size in sizes:
            rows.append(measure(size, Path(folder)))
            print_row(rows[-1])
    if sizes == SIZES:
        # Not above: what it imports must not be there before a child's own imports are timed.
        from jobs import RESULTS, machine

        told = {
            "machine": machine(),
            "aims": {"seconds": AIM_SECONDS, "mb_above_imports": AIM_MB},
            "rows": rows,
        }
        (RESULTS / "audit_scale.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
