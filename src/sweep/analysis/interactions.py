"""How pairs of searched parameters act on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sweep.analysis.axes import Axis, sentence, shown, title
from sweep.analysis.surrogate import Surrogate, fit

COLUMNS = ("first", "second", "share", "low", "high")
QUANTILES = (0.05, 0.5, 0.95)
# Draws of a variance are never zero. With this limit no search in which nothing interacts claims a pair, and
# one that does is found from 12 trials on two parameters, 24 on four: benchmarks/interaction_claims.py.
SMALL = 0.03
AGREEMENT = 0.9


def interactions(
    table: pd.DataFrame, axes: Sequence[Axis], *, seed: int, surrogate: Surrogate | None = None
) -> pd.DataFrame:
    """One row per pair, the strongest first. Empty where nothing can be said.

    share: of the variance at the top rung, what the pair explains beyond its two main effects;
    median over the surrogate's draws. low, high: bound 90% of them. surrogate: of this very table,
    if fitted already.

    Distrust a share whose `low` is below 0.03, and all of them where the surrogate's R squared is
    below about 0.3. Pairs take several times as many trials as main effects: with six parameters
    expect 24 to see the strongest and 64 to rank them.
    """
    surrogate = surrogate or fit(table, axes, seed=seed)
    if surrogate is None or not surrogate.pairs:
        return pd.DataFrame(columns=list(COLUMNS))
    low, share, high = np.quantile(surrogate.shares()[1], QUANTILES, axis=0)
    first, second = zip(*surrogate.pairs, strict=True)
    result = pd.DataFrame(
        {"first": first, "second": second, "share": share, "low": low, "high": high}, columns=list(COLUMNS)
    )
    return result.sort_values("share", ascending=False, ignore_index=True)


def surface(surrogate: Surrogate, first: str, second: str) -> pd.DataFrame:
    """The loss at the top rung over two parameters, averaged over the others, in the rows' long form.

    Columns: the two parameters by name; loss, low, high: mean and 90% of the draws; best: the value
    of `second` with the lowest mean loss at this value of `first`; best_low, best_high: 90% of the
    draws' best values, in the order of the axis. Far from any trial the interval is wide: read it.
    """
    one, other = surrogate.axis(first), surrogate.axis(second)
    loss = surrogate.surface(first, second)
    low, high = np.quantile(loss, [QUANTILES[0], QUANTILES[-1]], axis=0)
    best = loss.mean(axis=0).argmin(axis=1)
    bounds = [QUANTILES[0], QUANTILES[-1]]
    best_low, best_high = np.quantile(loss.argmin(axis=2), bounds, axis=0, method="nearest")
    columns = len(other.nodes)
    return pd.DataFrame(
        {
            first: [value for value in one.values for _ in range(columns)],
            second: other.values * len(one.nodes),
            "loss": loss.mean(axis=0).ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "best": [other.values[i] for i in best for _ in range(columns)],
            "best_low": [other.values[i] for i in best_low for _ in range(columns)],
            "best_high": [other.values[i] for i in best_high for _ in range(columns)],
        }
    )


def describe(surrogate: Surrogate | None, first: str, second: str) -> str:
    """One sentence on how two parameters act on each other, or that there are too few trials to tell.

    Too few: the surrogate predicts left-out trials badly, or the share's interval reaches from
    nothing to something. A shift of the best value is named where nine of ten draws agree on it.
    """
    both = f"{title(first)} and {title(second)}"
    unknown = f"Too few trials to tell how {both} act on each other"
    if surrogate is None:
        return f"{unknown}."
    if not surrogate.trusted:
        return f"{unknown}: trials are predicted from the others with R squared {surrogate.r_squared:.2f}."
    pair = (first, second) if (first, second) in surrogate.pairs else (second, first)
    draws = surrogate.shares()[1][:, list(surrogate.pairs).index(pair)]
    low, share, high = np.quantile(draws, QUANTILES)
    numbers = f"{share:.0%} of the variance, {low:.0%} to {high:.0%}"
    if high < SMALL:
        return sentence(f"{both} hardly act on each other: {numbers}.")
    if low < SMALL:
        return f"{unknown}: between {low:.0%} and {high:.0%} of the variance."
    # "The best learning rate at batch size 4" is a recipe; the best of few choices sits at an end.
    found = [
        (not surrogate.axis(moved).discrete, *shift)
        for along, moved in ((first, second), (second, first))
        if (shift := _shift(surrogate, along, moved))
    ]
    if not found:
        return sentence(f"{both} act on each other ({numbers}), but neither's best value moves for certain.")
    *_, text = max(found)
    return f"{text} ({numbers})."


def _shift(surrogate: Surrogate, along: str, moved: str) -> tuple[float, str] | None:
    """How far, from 0 to 1, the best `moved` travels between the ends of `along`, and the sentence.

    None where fewer than nine of ten draws agree. The ends of an axis without order are the two
    values whose best `moved` lie furthest apart.
    """
    start, end = surrogate.axis(along), surrogate.axis(moved)
    loss = surrogate.surface(along, moved)
    best = loss.mean(axis=0).argmin(axis=1)
    one, other = (0, -1) if start.scale != "categorical" else (int(best.argmin()), int(best.argmax()))
    travel = int(best[other] - best[one])
    picks = loss.argmin(axis=2)
    if not travel or np.mean(np.sign(picks[:, other] - picks[:, one]) == np.sign(travel)) < AGREEMENT:
        return None
    verb = "changes" if end.scale == "categorical" else "rises" if travel > 0 else "falls"
    return abs(travel) / (len(end.nodes) - 1), (
        f"The best {end.title} {verb} from {shown(end.values[best[one]])} at {start.title} "
        f"{shown(start.values[one])} to {shown(end.values[best[other]])} at {start.title} "
        f"{shown(start.values[other])}"
    )
