"""The order in which a trial sees its rows: infinite, seeded, without short batches at epoch ends."""

from __future__ import annotations

import functools

import numpy as np


class Stream:
    """Row indices by position: epoch after epoch, each a permutation drawn from (seed, epoch).

    Any position can be asked for, so resuming needs nothing but the number of examples seen.
    """

    def __init__(self, rows: int, *, seed: int) -> None:
        if rows < 1:
            raise ValueError(f"a stream needs at least one row, got {rows}")
        self._rows = rows
        self._seed = seed
        self._epoch = functools.lru_cache(maxsize=2)(self._permutation)

    def __getitem__(self, position: int) -> int:
        epoch, offset = divmod(position, self._rows)
        return int(self._epoch(epoch)[offset])

    def first(self, count: int) -> list[int]:
        """The rows at the first positions, each once: as many as asked, or all."""
        return [self[position] for position in range(min(count, self._rows))]

    def _permutation(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng([self._seed, epoch]).permutation(self._rows)
