"""Replies of a chat model: greedy, batched, longest prompts first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from sweep.data.encode import prompt_text
from sweep.data.example import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    system_prompt: str | None,
    max_new_tokens: int,
    rows_per_batch: int = 16,
) -> list[str]:
    """One reply per prompt, in the order given, without special tokens.

    Decoding is greedy and ends at the end of turn or after `max_new_tokens`.
    """
    system = [Message(role="system", content=system_prompt)] if system_prompt else []
    texts = [prompt_text((*system, Message(role="user", content=prompt)), tokenizer) for prompt in prompts]
    replies = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for first in range(0, len(order), rows_per_batch):
        indices = order[first : first + rows_per_batch]
        for i, reply in zip(
            indices, _batch(model, tokenizer, [texts[i] for i in indices], max_new_tokens), strict=True
        ):
            replies[i] = reply
    return replies


def _batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_new_tokens: int
) -> list[str]:
    encoded = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    ).to(model.device)
    tokens = cast(Any, model).generate(
        **encoded,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    new = tokens[:, encoded["input_ids"].shape[1] :]
    return [reply.strip() for reply in tokenizer.batch_decode(new, skip_special_tokens=True)]
