"""One frozen base model under many adapters: losses and gradients of rows of many trials in one pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from sweep.data.encode import Encoded, shared_beginning
from sweep.engines import attention
from sweep.engines.evaluate import Predicted
from sweep.engines.layout import Layout, Stretch, lay_out, length
from sweep.engines.lora import Adapter, Dropout, Lane, Lanes, Shape, scale_of, targeted
from sweep.engines.nats import nats
from sweep.types import Recipe

# A packed row's loss may differ from the one that it has alone by this share.
_ALIKE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.03}


class Part(NamedTuple):
    """Rows under one adapter, None for the base model itself.

    shared: tokens that all rows begin with. dropout: None where nothing is dropped; then alone may
    tokens be shared.
    """

    adapter: Adapter | None
    rows: Sequence[Encoded]
    shared: int = 0
    dropout: Dropout | None = None

    @property
    def stretch(self) -> Stretch:
        """The part on the line."""
        return Stretch(self.rows, self.shared)

    @property
    def tokens(self) -> int:
        """That the part takes on the line."""
        return self.stretch.tokens


class Pass(NamedTuple):
    """What a pass found. nats: of each row, part after part. padding: share of attention's cells."""

    nats: list[list[float]]
    padding: float


def cut(parts: Sequence[Part], tokens: int) -> Iterator[list[tuple[int, list[int]]]]:
    """The rows of all parts in passes of about equally long rows: part numbers, each with row numbers.

    No pass has more than `tokens` tokens unless a single row does.
    """
    rows = [(part, row) for part, given in enumerate(parts) for row in range(len(given.rows))]
    rows.sort(key=lambda place: length(parts[place[0]].rows[place[1]]))
    members: dict[int, list[int]] = {}
    taken = 0
    for part, row in rows:
        whole = length(parts[part].rows[row])
        beside = whole - parts[part].shared
        if members and taken + (beside if part in members else whole) > tokens:
            yield sorted(members.items())
            members, taken = {}, 0
        taken += beside if part in members else whole
        members.setdefault(part, []).append(row)
    if members:
        yield sorted(members.items())


class SharedBase:
    """A base model that computes each part of a packed line under that part's adapter.

    The model's weights are never copied or changed. While a pass runs, its linear layers carry
    hooks and its attention stays within rows; before and after, it is the model that it was.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = model.device
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        self.vocabulary = int(model.config.vocab_size)
        head = model.get_output_embeddings()
        # Not its subclasses, quantised ones among them: they compute something else.
        linear = {name: part for name, part in model.named_modules() if type(part) is nn.Linear}
        layers = {name: part for name, part in linear.items() if part is not head}
        self.shapes = {name: Shape(part.in_features, part.out_features) for name, part in layers.items()}
        self._lanes = Lanes(layers, model.device)

    def new_adapter(self, recipe: Recipe) -> Adapter:
        """All zero, for the layers that the recipe names. Raises ConfigError for a layer that isn't there."""
        shapes = {name: self.shapes[name] for name in targeted(self.model, recipe)}
        return Adapter(
            shapes, rank=recipe.lora_rank, scale=scale_of(recipe), dtype=self.dtype, device=self.device
        )

    def refusal(self, recipe: Recipe) -> str | None:
        """Why a trial with this recipe can't be packed, None if it can."""
        if recipe.dora:
            return "its recipe asks for DoRA"
        head = self.model.get_output_embeddings()
        if any(layer is head for layer in targeted(self.model, recipe).values()):
            return "its recipe adapts the output layer, which is computed for all trials at once"
        return None

    def learn(self, parts: Sequence[Part], weights: Sequence[float]) -> Pass:
        """The loss of each row, and gradients added to each adapter: of the sum of weight times loss.

        weights: what a response token of each part counts.
        """
        layout = self._lay_out(parts)
        counts = torch.tensor([len(part.rows) for part in parts], device=self.device)
        per_row = torch.tensor(weights, dtype=self.dtype, device=self.device).repeat_interleave(counts)
        with self._packed(parts), torch.enable_grad():
            found = nats(self._logits(layout), layout.targets)
            found.backward(per_row[layout.owners])
        return _found(found.detach(), layout, parts)

    @torch.no_grad()
    def score(self, parts: Sequence[Part]) -> Pass:
        """The loss of each row."""
        layout = self._lay_out(parts)
        with self._packed(parts):
            found = nats(self._logits(layout), layout.targets)
        return _found(found, layout, parts)

    def predictions(
        self, adapter: Adapter | None, rows: Sequence[Encoded], *, tokens: int
    ) -> Iterator[Predicted]:
        """What the model expects of the rows, shortest first, in passes of so many tokens at most."""
        whole = Part(adapter, rows, shared_beginning(rows) if rows else 0)
        for ((_, places),) in cut([whole], tokens):
            part = whole._replace(rows=[rows[place] for place in places])
            layout = self._lay_out([part])
            with self._packed([part]), torch.no_grad():
                logits = self._logits(layout)
            yield Predicted(places, [row.response_tokens for row in part.rows], logits, layout.targets)

    @contextmanager
    def wearing(self, adapter: Adapter) -> Iterator[PreTrainedModel]:
        """Within, the model by itself, unpacked, with the adapter on every token of whatever it is given."""
        with self._lanes.on([Lane(0, sys.maxsize, adapter, None)]):
            yield self.model

    def close(self) -> None:
        """Leave the model as it was found."""
        self._lanes.remove()

    def problem(self, rows: Sequence[Encoded]) -> str | None:
        """Why rows of this model can't be packed, None if they can: tried on two rows.

        The second row must not notice when the first one changes, must have the loss that it has by
        itself and by the model's own attention, and so must it under an adapter.
        """
        if not self._lanes.layers:
            return "it has no torch.nn.Linear layers"
        before, row = rows
        other = replace(before, input_ids=before.input_ids[::-1])
        adapter = _trial_adapter(self)
        try:
            beside = [self.score([Part(None, [first, row])]).nats[0][1] for first in (before, other)]
            by_itself = self.score([Part(None, [row])]).nats[0][0]
            updated = self.score([Part(None, [before]), Part(adapter, [row])]).nats[1][0]
            updated_by_itself = self.score([Part(adapter, [row])]).nats[0][0]
            plain, in_training = self._plain(row), self._plain(row, training=True)
        except (NotImplementedError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            return f"its forward pass takes no packed rows ({type(error).__name__}: {error})"
        if beside[0] != beside[1]:
            return "a row's loss depends on the row before it"
        if in_training != plain:
            return "it drops out units of its own in training, others in each pass"
        limit = _ALIKE[self.model.dtype] * abs(plain)
        pairs = ((beside[0], plain), (by_itself, plain), (updated, updated_by_itself))
        if any(abs(found - wanted) > limit for found, wanted in pairs):
            return f"a row's loss is {beside[0]:.6g} beside another and {plain:.6g} by itself"
        return None

    # How a pass runs

    def _lay_out(self, parts: Sequence[Part]) -> Layout:
        return lay_out([part.stretch for part in parts], self.device)

    def _packed(self, parts: Sequence[Part]) -> Any:
        lanes, start = [], 0
        for part in parts:
            if part.adapter is not None:
                lanes.append(Lane(start, start + part.tokens, part.adapter, part.dropout))
            start += part.tokens
        return self._lanes.on(lanes)

    def _logits(self, layout: Layout) -> torch.Tensor:
        """At the labelled positions, N x vocabulary."""
        with attention.packed_in(self.model):
            logits: torch.Tensor = self.model(
                input_ids=layout.input_ids,
                position_ids=layout.positions,
                use_cache=False,
                logits_to_keep=layout.predicts,
                layout=layout,
            ).logits
        return logits[0]

    @torch.no_grad()
    def _plain(self, row: Encoded, *, training: bool = False) -> float:
        """A row's nats by the model's own attention."""
        ids = torch.as_tensor(row.input_ids, device=self.device).long()[None]
        self.model.train(training)
        try:
            logits = self.model(input_ids=ids, use_cache=False).logits[0, row.response_start - 1 : -1]
        finally:
            self.model.eval()
        return float(nats(logits, ids[0, row.response_start :]).sum())


def _trial_adapter(base: SharedBase) -> Adapter:
    """One that changes every layer a little."""
    adapter = Adapter(base.shapes, rank=2, scale=1.0, dtype=base.dtype, device=base.device)
    generator = torch.Generator().manual_seed(0)
    for parameter in (adapter.A, adapter.B):
        parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return adapter


def _found(per_token: torch.Tensor, layout: Layout, parts: Sequence[Part]) -> Pass:
    count = sum(len(part.rows) for part in parts)
    rows = torch.zeros(count, dtype=torch.float64, device=per_token.device)
    by_row = rows.index_add_(0, layout.owners, per_token.double()).tolist()
    found, start = [], 0
    for part in parts:
        found.append(by_row[start : start + len(part.rows)])
        start += len(part.rows)
    return Pass(found, layout.padding)
