"""Causal attention within each row of a packed line, as an attention implementation of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from sweep.engines.layout import AttentionGroup, Layout

_NAME = "sweep_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **other: Any,
) -> tuple[torch.Tensor, None]:
    """What each row's attention gives alone, 1 x T x heads x width, from 1 x heads x T x width.

    Raises NotImplementedError for capped scores, which the fused kernels don't know.
    """
    if other.get("softcap") is not None:
        raise NotImplementedError("its attention caps its scores")
    parts = [_attend(query, key, value, group, scaling, sliding_window) for group in layout.groups]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return _Reorder.apply(whole, layout.order)[None], None  # type: ignore[no-untyped-call]


AttentionInterface.register(_NAME, packed_attention)


@contextmanager
def packed_in(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model attends by `packed_attention`, which needs the layout as a keyword of its call.

    Raises ValueError if its attention can't be replaced.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    group: AttentionGroup,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attention of a group's rows: its tokens x heads x width, row after row."""
    rectangles = [
        _Spread.apply(line[0].transpose(0, 1), group)  # type: ignore[no-untyped-call]
        .unflatten(0, (group.rows, group.longest))
        .transpose(1, 2)
        for line in (query, key, value)
    ]
    mask = _banded(group.longest, window, query.device) if window and window < group.longest else None
    queries, keys, values = rectangles
    attended = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return _Collect.apply(attended.transpose(1, 2).flatten(0, 1), group)  # type: ignore[no-any-return, no-untyped-call]


def _banded(longest: int, window: int, device: torch.device) -> torch.Tensor:
    ones = torch.ones(longest, longest, dtype=torch.bool, device=device)
    return ones.tril() & ~ones.tril(-window)


class _Spread(torch.autograd.Function):
    """From the line into a group's rectangle.

    What fills the rectangle gets no gradient: no query of its row sees it, its own output is dropped.
    """

    @staticmethod
    def forward(ctx: Any, line: torch.Tensor, group: AttentionGroup) -> torch.Tensor:
        ctx.group, ctx.tokens = group, line.shape[0]
        return line.index_select(0, group.spread)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        group = ctx.group
        line = gradient.new_zeros((ctx.tokens, *gradient.shape[1:]))
        line.index_copy_(0, group.own_line, gradient.index_select(0, group.own))
        rectangle = gradient.unflatten(0, (group.rows, group.longest))
        for rows, start, tokens in group.beginnings:
            line[start : start + tokens] = rectangle[:, :tokens].index_select(0, rows).sum(dim=0)
        return line, None


class _Collect(torch.autograd.Function):
    """From a group's rectangle its tokens, row after row."""

    @staticmethod
    def forward(ctx: Any, rectangle: torch.Tensor, group: AttentionGroup) -> torch.Tensor:
        ctx.group, ctx.cells = group, rectangle.shape[0]
        return rectangle.index_select(0, group.collect)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        rectangle = gradient.new_zeros((ctx.cells, *gradient.shape[1:]))
        return rectangle.index_copy_(0, ctx.group.collect, gradient), None


class _Reorder(torch.autograd.Function):
    """Tokens put where `order` says: a permutation."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        ctx.order = order
        return torch.empty_like(tokens).index_copy_(0, order, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.index_select(0, ctx.order), None
