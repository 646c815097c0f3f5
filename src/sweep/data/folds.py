"""Train and validation rows as one pool, dealt into folds: few rows judge better when all of them do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sweep.data.example import Example
from sweep.data.split import MISPLACED, DataSet, deal, digest, shuffled
from sweep.errors import DataError
from sweep.schema import require
from sweep.types import Split


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How trials are judged. folds: that the pool is dealt into; None: by a validation split of its own."""

    folds: int | None

    def __post_init__(self) -> None:
        held = self.folds is None or self.folds >= 2
        require("validation.folds", self.folds, held, "at least 2, or null for a validation split of its own")


def pooled(data: DataSet, *, folds: int, seed: int) -> DataSet:
    """The data set with the validation split joined to the train split, which is dealt into folds.

    Look-alikes share a fold; folds are as near to equal, within each intent too, as that allows. The
    result depends on the rows' content and the seed. Raises DataError where a fold would stay empty.
    """
    rows = (*data.examples["train"], *data.examples["validation"])
    # The same salt as the splits', so that the pool keeps their order.
    pool = tuple(rows[i] for i in np.argsort(shuffled(rows, salt=f"{seed}/order")))
    groups = np.array([data.groups[row.id] for row in pool])
    dealt = deal(
        groups,
        [row.intent or "" for row in pool],
        ranks=shuffled(pool, salt=f"{seed}/folds"),
        wanted=np.full(folds, 1 / folds),
    )
    counts = np.bincount(dealt, minlength=folds)
    largest = int(np.bincount(groups).max())
    if not counts.all():
        raise DataError(
            f"validation.folds={folds}: the {len(pool)} train and validation rows form {len(set(groups))} "
            f"groups of look-alikes, the largest of {largest} rows, which leave a fold empty; each must hold "
            f"a row. Lower validation.folds, add rows, or raise data.split.group_similarity."
        )
    notes = data.notes
    if np.ptp(counts) > MISPLACED * len(pool):
        notes += (
            f"The folds hold {counts.min()} to {counts.max()} rows, because up to {largest} look-alike rows "
            "stay together. Delete repeats, or lower validation.folds.",
        )
    kept: dict[Split, tuple[Example, ...]] = {**data.examples, "train": pool}
    del kept["validation"]
    return replace(
        data,
        examples=kept,
        fingerprint=digest([data.fingerprint, dealt.tolist()]),
        notes=notes,
        folds=dict(zip([row.id for row in pool], dealt.tolist(), strict=True)),
    )
