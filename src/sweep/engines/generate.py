"""Replies of a chat model: greedy, in batches of about equally long prompts, each token read once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from transformers.cache_utils import DynamicLayer

from sweep.data.encode import end_token, prompt_text, tokens_of
from sweep.data.example import Message, Role
from sweep.engines.evaluate import in_order
from sweep.engines.outcome import free_memory, is_out_of_memory
from sweep.engines.sharded import agreed
from sweep.errors import ModelError
from sweep.ranks import this_rank
from sweep.types import Asking, Prompt, Reply

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Prompts and what may follow them, in one batch. A GPU has room for more, and says where it has not.
_TOKENS = {"cpu": 8192, "cuda": 32768}
# A prompt joins longer ones if it is at least this share of their length: on a CPU padding costs as much as
# reading, and a batch of its own as much as some 600 tokens.
_ALIKE = 0.5
# A beginning shorter than this is not worth a pass of its own.
_LEAST_SHARED = 8
# What models call their cache.
_CACHES = ("past_key_values", "cache_params")


class _Written(NamedTuple):
    """A prompt's new tokens, and the seconds since its batch was begun."""

    tokens: list[int]
    seconds: float


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asking: Asking) -> tuple[Reply, ...]:
    """One reply per prompt, in the order given.

    Each token is the likeliest, whatever the model's generation config says of penalties. A reply ends
    at any token that ends a turn, which is counted, or after `max_tokens`. A prompt that would
    leave the model too few positions for that loses its beginning. Raises ModelError where it has too
    few anyway.
    """
    return in_order(reply_batches(model, tokenizer, asking))


def reply_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asking: Asking,
    *,
    tokens_per_batch: int | None = None,
) -> Iterator[dict[int, Reply]]:
    """The same batch by batch, by the prompts' places, for those who may stop in between.

    Longest prompts first; out of memory halves a batch and those after it. tokens_per_batch: what
    prompts and replies, padded, may take together, None for what suits the device.
    """
    model.eval()
    prompts = _prompts(model, tokenizer, asking)
    ends = _ends(model, tokenizer)
    room = tokens_per_batch or _TOKENS.get(model.device.type, _TOKENS["cpu"])
    waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    while waiting:
        longest = len(prompts[waiting[0]])
        fitting = waiting[: max(1, room // (longest + asking.max_tokens))]
        taken = [i for i in fitting if len(prompts[i]) >= _ALIKE * longest]
        written = None
        try:
            written = _batch(
                model, [prompts[i] for i in taken], cast(int, tokenizer.pad_token_id), ends, asking.max_tokens
            )
        except (RuntimeError, MemoryError) as error:
            # The other devices of a group would not know of a smaller batch.
            if not is_out_of_memory(error) or len(taken) == 1 or this_rank().count > 1:
                raise
            room = len(taken) // 2 * (longest + asking.max_tokens)
        if written is None:
            # Not above, where the error still holds the batch.
            free_memory()
            continue
        waiting = waiting[len(taken) :]
        yield {
            i: Reply(
                row=asking.prompts[i].row,
                text=str(tokenizer.decode(reply.tokens, skip_special_tokens=True)).strip(),
                prompt_tokens=len(prompts[i]),
                tokens=len(reply.tokens),
                seconds=reply.seconds,
                ended=reply.tokens[-1] in ends,
            )
            for i, reply in zip(taken, written, strict=True)
        }


def _prompts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asking: Asking) -> list[list[int]]:
    """The prompts in the model's chat format, no longer than it can read and still answer."""
    texts = [prompt_text(_messages(prompt), tokenizer) for prompt in asking.prompts]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tokens = tokens_of(texts, tokenizer)
    if positions is None:
        return tokens
    if positions <= asking.max_tokens:
        raise ModelError(
            f"model `{tokenizer.name_or_path}` has {positions} positions; they must hold a prompt and an "
            f"answer of up to {asking.max_tokens} tokens. Ask for shorter answers, or choose another model."
        )
    return [prompt[asking.max_tokens - positions :] for prompt in tokens]


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    return tuple(Message(role=cast(Role, role), content=content) for role, content in prompt.turns)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All tokens after which it is the user's turn: the model's own, and what training ends answers with."""
    own = getattr(model.generation_config, "eos_token_id", None)
    several = own if isinstance(own, list) else [own]
    ends = {*several, tokenizer.eos_token_id, end_token(tokenizer)}
    return frozenset(cast("set[int]", ends - {None}))


@torch.no_grad()
def _batch(
    model: PreTrainedModel, prompts: Sequence[list[int]], pad_token: int, ends: frozenset[int], most: int
) -> list[_Written]:
    """What the model writes after each prompt; rows leave the batch as they end."""
    begun = time.monotonic()
    takes = _parameters(model)
    cache = _read_once(model, prompts) if "position_ids" in takes else {}
    shared = cache["past_key_values"].get_seq_length() if cache else 0
    ids, mask = (part.to(model.device) for part in _padded([row[shared:] for row in prompts], pad_token))
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
    written: list[list[int]] = [[] for _ in prompts]
    seconds = [0.0] * len(prompts)
    writing = list(range(len(prompts)))
    while writing:
        given = {"position_ids": _positions(mask)[:, -ids.shape[1] :], "logits_to_keep": 1}
        output = model(
            input_ids=ids,
            # A recurrent state has taken the padding in; what comes after it is one token without any.
            attention_mask=None if "cache_params" in cache else mask,
            use_cache=True,
            **{name: value for name, value in given.items() if name in takes},
            **cache,
        )
        chosen = agreed(output.logits[:, -1].argmax(dim=-1))
        tokens = chosen.tolist()
        # Not before: a GPU is waited for only there.
        elapsed = time.monotonic() - begun
        for row, token in zip(writing, tokens, strict=True):
            written[row].append(token)
            seconds[row] = elapsed
        kept = [
            place
            for place, row in enumerate(writing)
            if written[row][-1] not in ends and len(written[row]) < most
        ]
        cache = _cache(output)
        if len(kept) < len(writing):
            index = torch.tensor(kept, dtype=torch.long, device=model.device)
            writing, chosen, mask = [writing[place] for place in kept], chosen[index], mask[index]
            if kept:
                for part in cache.values():
                    part.reorder_cache(index)
        ids, mask = chosen[:, None], torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
    return [_Written(*one) for one in zip(written, seconds, strict=True)]


def _read_once(model: PreTrainedModel, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """The cache of what all prompts begin with, a system prompt or examples, for each of them; or nothing.

    Padding then stands between it and the rest, where masked attention over the whole past passes it by; a
    sliding window or a recurrent state would take it in.
    """
    shared = next(
        (place for place, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1),
        min(map(len, prompts)),
    )
    # The last token of each is read in the batch: what it predicts is wanted.
    shared = min(shared, min(map(len, prompts)) - 1)
    if len(prompts) == 1 or shared < _LEAST_SHARED:
        return {}
    output = model(input_ids=torch.tensor([prompts[0][:shared]], device=model.device), use_cache=True)
    cache = output.get("past_key_values")
    if cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return {}
    cache.reorder_cache(torch.zeros(len(prompts), dtype=torch.long, device=model.device))
    return {"past_key_values": cache}


def _padded(prompts: Sequence[list[int]], pad_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, prompts x longest; padding stands on the left, so that all end at the same place."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_token)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Counted from each prompt's first token."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _cache(output: Any) -> dict[str, Any]:
    """What the model wants to be given with the next token."""
    found = {name: output[name] for name in _CACHES if output.get(name) is not None}
    if not found:
        raise ModelError(
            f"model: {type(output).__name__} holds no cache of what was read; a model must give one to "
            "write replies. Choose another model."
        )
    return found


def _parameters(model: PreTrainedModel) -> frozenset[str]:
    """What its forward pass can be told. An adapted model takes anything and hands it on."""
    plain = cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(plain.forward).parameters)
