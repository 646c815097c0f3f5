"""Text that has nothing to do with anybody's data: what a tuned model loses on it, it has forgotten."""

from __future__ import annotations

import json
from typing import NamedTuple

from sweep.paths import packaged_root


class Passage(NamedTuple):
    """Some sentences of general knowledge, to be scored from their first word to the last."""

    id: str
    text: str


def general_passages() -> tuple[Passage, ...]:
    """The passages that the product ships, in the order of their file, `data/general/general.jsonl`."""
    path = packaged_root() / "data" / "general" / "general.jsonl"
    return tuple(Passage(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
