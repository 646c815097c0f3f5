"""Whether confirmation keeps what it promises: intervals that hold the truth, no flattery, few false winners.

Whole searches are drawn from known qualities. Each row has an effect on every model, each model one on
every cluster and row, each seed one on its model and on every row. The best of 40 on validation rows goes on
with four others and the defaults, three fresh seeds each; one is chosen on confirm rows and judged on test
rows, against the defaults and a baseline as good as they are. Writes `results/confirmation_claims.json`.
Five minutes on one core.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from sweep.evaluation.compare import Difference
from sweep.evaluation.rows import RowValue
from sweep.evaluation.selection import choose, finalists, seeded_difference
from sweep.evaluation.verdict import Comparison, judge_winner
from sweep.types import Decision

Array = NDArray[np.float64]
RESULT = Path(__file__).parent / "results" / "confirmation_claims.json"
REPEATS, RESAMPLES = 1_000, 1_000
TRIALS, FINALISTS, SEEDS = 40, 5, 3
CLUSTERS, ROWS_EACH = 75, 2
DEFAULTS, BASELINE = TRIALS, TRIALS + 1
IDS = [str(row) for row in range(CLUSTERS * ROWS_EACH)]
GROUPS = {row: int(row) // ROWS_EACH for row in IDS}


@dataclass(frozen=True, kw_only=True)
class World:
    """Standard deviations of what a row's value is made of, beside its model's quality.

    gain: of the best trial over the defaults; the others lie evenly down to the defaults less as much.
    shared: of a row, in all models; of a model in a cluster, in a row, with a seed, and with a seed in a row.
    """

    gain: float
    seed: float
    shared: float = 0.4
    cluster: float = 0.15
    row: float = 0.25
    seed_row: float = 0.2


WORLDS = [
    World(gain=gain, seed=seed)
    for gain, seed in ((0, 0.01), (0.1, 0.01), (0.2, 0.01), (0, 0.03), (0.2, 0.03))
]


class Search(NamedTuple):
    """What came of one search.

    naive: the gain over the defaults that validation showed for the trial best there, beyond the true one.
    truth: the chosen one's true gain over the defaults, and, as baseline and defaults are as good, over the
    baseline. luck: what these seeds add to it, on any rows. tested: the difference to the defaults as
    measured, resampled: its interval if seeds were resampled like rows; None where the defaults were chosen.
    baseline: the difference to it as measured.
    """

    naive: float
    truth: float
    luck: float
    tested: Difference | None
    resampled: tuple[float, float] | None
    baseline: Difference
    outcome: Decision


def values(world: World, quality: Array, luck: Array, rng: np.random.Generator) -> Array:
    """The values of a new split's rows: models, seeds, rows. quality: by model. luck: by model and seed."""
    models, seeds = luck.shape
    rows = len(IDS)
    return np.asarray(
        rng.normal(0, world.shared, rows)
        + rng.normal(0, world.cluster, (models, 1, CLUSTERS)).repeat(ROWS_EACH, axis=2)
        + rng.normal(0, world.row, (models, 1, rows))
        + rng.normal(0, world.seed_row, (models, seeds, rows))
        + (quality[:, None] + luck)[:, :, None]
    )


def seeds_of(model: Array) -> dict[int, list[RowValue]]:
    """A model's rows by seed, as confirmation takes them."""
    return {seed: list(map(RowValue, IDS, rows.tolist())) for seed, rows in enumerate(model)}


def search(world: World, *, seed: int, resamples: int) -> Search:
    """One search, confirmed by the product's own functions."""
    rng = np.random.default_rng([seed, 0])  # not the stream that intervals are drawn from
    quality = np.concatenate([world.gain * np.linspace(-1, 1, TRIALS), [0.0, 0.0]])
    seen = values(world, quality, rng.normal(0, world.seed, (len(quality), 1)), rng).mean(axis=(1, 2))
    shown = {str(trial): float(seen[trial]) for trial in range(TRIALS)}
    listed = finalists(shown, {}, better="higher", defaults=str(DEFAULTS), count=FINALISTS)
    best = int(listed[0])

    luck = rng.normal(0, world.seed, (len(quality), SEEDS))
    luck[BASELINE] = 0.0
    kept = [int(trial) for trial in listed]
    confirm = values(world, quality[kept], luck[kept], rng)
    candidates = {trial: seeds_of(model) for trial, model in zip(listed, confirm, strict=True)}
    chosen = int(choose(candidates, better="higher").trial)

    three = [chosen, DEFAULTS, BASELINE]
    models = values(world, quality[three], luck[three], rng)
    first, second, untrained = (seeds_of(model) for model in models)
    baseline = seeded_difference(first, untrained[0], clusters=GROUPS, seed=seed, resamples=resamples)
    tested, resampled = None, None
    if chosen != DEFAULTS:
        tested = seeded_difference(first, second, clusters=GROUPS, seed=seed, resamples=resamples)
        resampled = resampled_interval(models[0], models[1], rng, resamples)
    return Search(
        naive=float(seen[best] - seen[DEFAULTS] - quality[best]),
        truth=float(quality[chosen]),
        luck=float(luck[chosen].mean() - luck[DEFAULTS].mean()),
        tested=tested,
        resampled=resampled,
        baseline=baseline,
        outcome=judge_winner(
            _compared("baseline", baseline),
            _compared("defaults", tested) if tested else None,
            guards=(),
            better="higher",
        ).outcome,
    )


def resampled_interval(
    first: Array, second: Array, rng: np.random.Generator, resamples: int
) -> tuple[float, float]:
    """95% interval of the difference where clusters and each side's seeds are resampled alike."""
    times = rng.multinomial(CLUSTERS, np.full(CLUSTERS, 1 / CLUSTERS), size=resamples) / CLUSTERS
    means = []
    for side in (first, second):
        clusters = side.reshape(SEEDS, CLUSTERS, ROWS_EACH).mean(axis=2)
        seeds = rng.multinomial(SEEDS, np.full(SEEDS, 1 / SEEDS), size=resamples) / SEEDS
        means.append(((times @ clusters.T) * seeds).sum(axis=1))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def claims(searches: Sequence[Search]) -> dict[str, list[float]]:
    """What the searches show, each figure with its 95% interval over searches.

    Gains count for searches that chose another trial than the defaults. A ship is false where the gain over
    the defaults is not above 0.
    """
    won = [(one, one.tested, one.resampled) for one in searches if one.tested and one.resampled]
    return {
        "defaults_chosen": _share([one.tested is None for one in searches]),
        "held": _share([test.low <= one.truth <= test.high for one, test, _ in won]),
        "held_by_baseline": _share([one.baseline.low <= one.truth <= one.baseline.high for one in searches]),
        "held_if_resampled": _share([low <= one.truth <= high for one, _, (low, high) in won]),
        "naive_bias": _mean([one.naive for one in searches]),
        "test_bias": _mean([test.value - one.truth for one, test, _ in won]),
        "test_bias_of_these_seeds": _mean([test.value - one.truth - one.luck for one, test, _ in won]),
        "width": _mean([test.high - test.low for _, test, _ in won]),
        "true_gain": _mean([one.truth for one in searches]),
        "ship": _share([one.outcome == "ship" for one in searches]),
        "false_ship": _share([one.outcome == "ship" and one.truth <= 0 for one in searches]),
        "use_baseline": _share([one.outcome == "use_baseline" for one in searches]),
    }


def _compared(rival: str, difference: Difference) -> Comparison:
    return Comparison(rival=rival, difference=difference, signed_rank_p=1.0, succeeds=False)


def _share(hits: Sequence[bool]) -> list[float]:
    """The share, and Wilson's interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return [round(float(x), 4) for x in (np.mean(hits), interval.low, interval.high)]


def _mean(numbers: Sequence[float]) -> list[float]:
    """The mean, and its normal interval."""
    error = 1.96 * float(np.std(numbers, ddof=1)) / math.sqrt(len(numbers))
    return [
        round(float(x), 4) for x in (np.mean(numbers), np.mean(numbers) - error, np.mean(numbers) + error)
    ]


def main() -> None:
    """Draw, print, write."""
    shown = (
        "held",
        "held_if_resampled",
        "naive_bias",
        "test_bias",
        "test_bias_of_these_seeds",
        "ship",
        "false_ship",
    )
    print(f"{'gain':>4} {'seed':>5}", *(f"{name:>24}" for name in shown))
    rows = []
    for world in WORLDS:
        searches = [search(world, seed=seed, resamples=RESAMPLES) for seed in range(REPEATS)]
        rows.append({**asdict(world), "searches": REPEATS, **(found := claims(searches))})
        cells = ["{:.3f} ({:.3f} to {:.3f})".format(*found[name]) for name in shown]
        print(f"{world.gain:>4} {world.seed:>5}", *(f"{cell:>24}" for cell in cells), flush=True)
    told = {"trials": TRIALS, "finalists": FINALISTS, "seeds": SEEDS, "rows": len(IDS), "clusters": CLUSTERS}
    RESULT.write_text(json.dumps({**told, "resamples": RESAMPLES, "worlds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
