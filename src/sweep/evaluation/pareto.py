"""Several aims at once: what each is, which way is better, and where a score tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from sweep.errors import ConfigError
from sweep.evaluation.business import TOXIC, Business
from sweep.evaluation.metrics import LOSS
from sweep.schema import require
from sweep.types import Aimed, Score

NET_VALUE = "net_value"
QUALITY = "quality"
_SHARE, _SECONDS, _SCORER = "share of tickets", "s", "from 0 to 1"
# Of the objective's own currency.
_MONEY = ""
# What every score tells and trials differ in: its unit, and whether the higher is the better one.
KNOWN = {
    "resolved": (_SHARE, True),
    "escalated": (_SHARE, False),
    "wrong": (_SHARE, False),
    "pii_leak": ("share of replies", False),
    "tokens": ("tokens a reply", False),
    "p95_seconds": (_SECONDS, False),
    "value_resolved": (_MONEY, True),
    "cost_escalated": (_MONEY, False),
    "cost_wrong": (_MONEY, False),
    "cost_serving": (_MONEY, False),
    "cost_latency": (_MONEY, False),
    LOSS: ("nats per token", False),
}
# The same under names of their own.
OFFERED = (NET_VALUE, "p95_latency", QUALITY, *KNOWN)


class Aim(NamedTuple):
    """One aim of several. metric: of a score, counted `factor` times; None for the score's own value."""

    name: str
    unit: str
    higher_is_better: bool
    metric: str | None
    factor: float = 1.0

    def of(self, score: Score) -> Aimed:
        """The score by this aim, NaN where it does not tell."""
        told = score.value if self.metric is None else score.metrics.get(self.metric, math.nan)
        return Aimed(self.name, self.factor * told, self.unit, self.higher_is_better)


@dataclass(frozen=True, kw_only=True)
class Pareto(Business):
    """Business whose search has several aims; whatever is confirmed is judged by its net value.

    aims: `OFFERED`, or a scorer's mean, the higher the better, `NAME:lower` where it is not. quality: the
    scorer behind that aim. The latency of an aim is that of `latency`: computed by its speeds if they are
    given, else as it was measured.
    """

    aims: tuple[str, ...]
    quality: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        given, enough = list(self.aims), len(self.aims) >= 2
        require("objective.aims", given, enough, "two aims at least; for net value alone, objective=business")
        first = given[0] == NET_VALUE
        require("objective.aims", given, first, f"a list with {NET_VALUE} first, which decides in the end")
        require(
            "objective.rung_metric", self.rung_metric, self.rung_metric == LOSS, "loss: aims judge trials"
        )
        told = [aim.metric for aim in self.searched]
        twice = [aim.name for at, aim in enumerate(self.searched) if aim.metric in told[:at]]
        claim = f"of different things, and {', '.join(twice)} says what one before it says"
        require("objective.aims", given, not twice, claim)

    @property
    def searched(self) -> tuple[Aim, ...]:
        """The aims in their order. Raises ConfigError for one that can't be read."""
        return tuple(self._aim(text) for text in self.aims)

    def _aim(self, text: str) -> Aim:
        name, colon, direction = text.partition(":")
        if colon and (name in OFFERED or direction not in ("lower", "higher")):
            raise ConfigError(
                f"objective.aims: {text!r} must be a scorer's name with :lower or :higher after it; of the "
                f"others it is known which is better. Write {name}{'' if name in OFFERED else ':lower'}."
            )
        if name == NET_VALUE:
            return Aim(name, self.unit, higher_is_better=True, metric=None)
        if name == "p95_latency":
            return Aim(name, "ms", higher_is_better=False, metric="p95_seconds", factor=1000.0)
        if name == QUALITY:
            if self.quality is None:
                raise ConfigError(
                    "objective.quality: must name a scorer, for quality is one of objective.aims; got null. "
                    "Write objective.quality=chrf, or take quality out of objective.aims."
                )
            return Aim(name, _SCORER, self.quality != TOXIC, metric=self.quality)
        if name in KNOWN:
            unit, higher = KNOWN[name]
            return Aim(name, unit or self.unit, higher, metric=name)
        return Aim(name, _SCORER, direction == "higher" if colon else name != TOXIC, metric=name)
