"""A row as training and scoring see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One conversation that ends with the assistant's reference answer.

    required, forbidden: phrases that an answer must, must not hold. slices: what the row is
    reported by, column to value.
    """

    id: str
    messages: tuple[Message, ...]
    intent: str | None
    required: tuple[str, ...]
    forbidden: tuple[str, ...]
    slices: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """All turns before the answer, one after the other, without the system prompt."""
        return "\n".join(turn.content for turn in self.messages[:-1] if turn.role != "system")

    @property
    def response(self) -> str:
        """The reference answer."""
        return self.messages[-1].content
