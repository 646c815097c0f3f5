"""A process's place among those that hold one model together, as their environment tells it."""

from __future__ import annotations

import os
from dataclasses import dataclass

# Not torchrun's names: by those Trainer would take the batch apart as well.
RANKS = "SWEEP_RANKS"
_RANK, _PORT, _LISTENER = "SWEEP_RANK", "SWEEP_RANK_PORT", "SWEEP_RANK_LISTENER"


@dataclass(frozen=True, kw_only=True)
class Rank:
    """number: from 0, who speaks for all, to count - 1. port: of this machine, where they find each other.

    listener: the file descriptor of the first one's socket that listens there already.
    """

    number: int = 0
    count: int = 1
    port: int = 0
    listener: int | None = None

    @property
    def first(self) -> bool:
        """Whether it speaks for the group, or is alone."""
        return self.number == 0

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process that this is its place."""
        listener = {} if self.listener is None else {_LISTENER: str(self.listener)}
        return {_RANK: str(self.number), RANKS: str(self.count), _PORT: str(self.port)} | listener


def this_rank() -> Rank:
    """This process's place; alone where nothing tells otherwise."""
    listener = os.environ.get(_LISTENER)
    return Rank(
        number=int(os.environ.get(_RANK, "0")),
        count=int(os.environ.get(RANKS, "1")),
        port=int(os.environ.get(_PORT, "0")),
        listener=None if listener is None else int(listener),
    )
