"""Who writes where, in which style, about which fact."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from corpus import Fact, Intent
from slots import draw_slots

# Misspelt rows leave out the phone: a transcript has no typing.
CHANNELS = {
    "formal": (("email", "chat", "phone", "social"), (0.45, 0.25, 0.22, 0.08)),
    "casual": (("chat", "email", "social", "phone"), (0.34, 0.18, 0.2, 0.28)),
    "terse": (("chat", "social", "email"), (0.6, 0.3, 0.1)),
    "angry": (("chat", "email", "social", "phone"), (0.25, 0.25, 0.25, 0.25)),
    "misspelt": (("chat", "social", "email"), (0.5, 0.3, 0.2)),
}


@dataclass(frozen=True)
class Scene:
    """Who writes where, in which style, about which fact in which context.

    `voice` is the written style beneath: a misspelt message is a casual, terse or formal one mistyped.
    """

    intent: Intent
    fact: Fact
    case: Mapping[str, str]
    style: str
    voice: str
    channel: str
    group: str
    values: Mapping[str, str]

    def about(self, fact: Fact, case: Mapping[str, str]) -> Scene:
        """The same customer on another fact or context."""
        values = {name: text for name, text in self.values.items() if name not in self.case}
        return replace(self, fact=fact, case=case, values={**values, **case})


def draw_scene(rng: random.Random, fact: Fact, *, intent: Intent, style: str) -> Scene:
    """A customer, a channel and a context for `fact`."""
    case = rng.choice(fact.cases)
    voice = rng.choice(("casual", "casual", "casual", "terse", "formal")) if style == "misspelt" else style
    channels, weights = CHANNELS[style]
    group = rng.choices(("new", "regular", "business"), (0.34, 0.42, 0.24))[0]
    return Scene(
        intent=intent,
        fact=fact,
        case=case,
        style=style,
        voice=voice,
        channel=rng.choices(channels, weights)[0],
        group="business" if intent.id == "business_accounts" else case.get("group", group),
        values={**draw_slots(rng, item_class=fact.item_class), **case},
    )
