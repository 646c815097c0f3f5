"""Text that has nothing to do with anybody's data: what a tuned model loses on it, it has forgotten."""

from __future__ import annotations

import json

from sweep.data.example import Example, Message
from sweep.paths import packaged_root

_ASKED = "Tell me something about the world."


def general_examples() -> tuple[Example, ...]:
    """The passages that the product ships, in the order of `data/general/general.jsonl`, each an answer."""
    path = packaged_root() / "data" / "general" / "general.jsonl"
    passages = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Example(
            id=passage["id"],
            messages=(
                Message(role="user", content=_ASKED),
                Message(role="assistant", content=passage["text"]),
            ),
            intent=None,
            required=(),
            forbidden=(),
            slices={},
        )
        for passage in passages
    )
