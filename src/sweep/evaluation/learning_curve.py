"""Whether more rows would help: the loss of one recipe, trained on a part of them and on all."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sweep.types import Verdict

# Parts of the train split that are trained on, beside the whole.
PARTS = (0.25, 0.5)
# Share of the loss that a doubling of the rows may still take away.
_LIMIT = 0.03


def still_falling(losses: Mapping[float, float]) -> Verdict:
    """Whether the last doubling of the rows took more than 3% off the loss.

    losses: by share of the train split, 1 and 0.5 among them, each after the same number of epochs.
    """
    fall = 1 - losses[1.0] / losses[0.5]
    told = ", ".join(f"{losses[share]:.3f} with {share:.0%} of the rows" for share in sorted(losses))
    mend = ": more rows would help, collect some" if fall > _LIMIT else ""
    return _verdict(fall, f"loss {told}{mend}")


def unused(epochs: float) -> Verdict:
    """That nothing can be said, where training did not even see all rows."""
    return _verdict(
        math.nan,
        f"can't tell whether more rows would help: with recipe.epochs={epochs:g} not all of them were seen",
    )


def _verdict(value: float, message: str) -> Verdict:
    return Verdict(
        check="learning_curve",
        passed=not value > _LIMIT,
        severity="warn",
        value=value,
        limit=_LIMIT,
        message=message,
    )
