"""What every engine is given: picklable descriptions, loaded in the worker on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.data.encode import Encoded, encode, shared_beginning
from sweep.data.split import DataSet
from sweep.engines.model import ModelSource
from sweep.engines.tokens import identity, mapped
from sweep.types import Job, Split, View

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The base model, the rows, the longest row in tokens, and where states lie.

    folder: on this machine, for what its processes share. place: a URL below which states lie, None: in the
    folder as well.
    """

    model: ModelSource
    data: DataSet
    max_tokens: int
    folder: Path
    place: str | None = None

    def state(self, job: Job, examples: int) -> str:
        """Where the job's trial keeps its state after so many examples."""
        fold = job.train.fold
        within = job.trial.id if fold is None else f"{job.trial.id}/fold{fold}"
        return f"{self.place or self.folder}/{within}/{examples}"


class EncodedRows:
    """The rows of each split as tokens, encoded once for all processes, when first asked for.

    Folds are parts of the train split, so a cross-validation keeps no row twice.
    """

    def __init__(self, inputs: Inputs, tokenizer: PreTrainedTokenizerBase) -> None:
        self._inputs = inputs
        self._tokenizer = tokenizer
        self._splits: dict[Split, tuple[Encoded, ...]] = {}
        self._shared: dict[Split, int] = {}

    def view(self, view: View) -> tuple[Encoded, ...]:
        """The rows that a job's view names."""
        rows = self._split(view.home)
        if view.fold is None:
            return rows[: view.rows]
        return tuple(rows[place] for place in self._inputs.data.places(view))

    def _split(self, split: Split) -> tuple[Encoded, ...]:
        if split not in self._splits:
            self._splits[split] = mapped(self._folder(split), lambda: self._encoded(split))
        return self._splits[split]

    def _encoded(self, split: Split) -> Sequence[Encoded]:
        examples = self._inputs.data.examples[split]
        return encode(examples, self._tokenizer, max_tokens=self._inputs.max_tokens)

    def _folder(self, split: Split) -> Path:
        parts = (self._inputs.data.fingerprint, identity(self._tokenizer), self._inputs.max_tokens)
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        return self._inputs.folder / ".tokens" / f"{split}-{key}"

    def shared(self, view: View) -> int:
        """How many tokens of prompt all rows begin with of the split that holds the view's."""
        if view.home not in self._shared:
            self._shared[view.home] = shared_beginning(self._split(view.home))
        return self._shared[view.home]
