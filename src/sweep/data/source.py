"""Where a data set comes from and how it is dealt out: the `data` node of the configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweep.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Shares of the rows, each above 0, together 1.

    group_similarity: rows stay in one split where their prompts' sets of five-character pieces
    overlap by this much (Jaccard, above 0 up to 1).
    """

    train: float
    validation: float
    confirm: float
    test: float
    golden: float
    group_similarity: float

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.confirm, self.test, self.golden)
        if not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise DataError(
                f"data.split: the shares train, validation, confirm, test, golden are {shares}, together "
                f"{sum(shares):.4g}; each must be above 0, and their sum 1. Change data.split.train."
            )
        if not 0 < self.group_similarity <= 1:
            raise DataError(
                f"data.split.group_similarity={self.group_similarity}: must be above 0 and at most 1, "
                "where only prompts with the same pieces are grouped. Set it to 0.8 if in doubt."
            )


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the rows are and which columns hold what: the `data` config.

    path: a file ending in .jsonl, .csv or .parquet, looked for in the working directory, then in
    the packaged files; or a Hub data set, "org/name" or "hub:org/name", of which `hub_split` is
    read. Columns that are None are found by their usual names, or left out. system_prompt: for
    rows that have none. max_rows: the first ones.
    """

    path: str
    hub_split: str
    messages_column: str | None
    prompt_column: str | None
    response_column: str | None
    id_column: str | None
    intent_column: str | None
    required_column: str | None
    forbidden_column: str | None
    slice_columns: tuple[str, ...]
    system_prompt: str | None
    max_tokens: int
    max_rows: int | None
    split: SplitShares
