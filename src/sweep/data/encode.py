"""Examples as token ids in the model's chat format, answers marked for training."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from jinja2 import TemplateError

from sweep.data.example import Example, Message
from sweep.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
# A beginning shorter than this is not worth its bookkeeping.
_LEAST_SHARED = 8


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One example's tokens: the prompt, then from `response_start` (at least 1) the answer and its end.

    response_bytes: UTF-8 bytes of the answer's text as far as it was kept, for loss per byte.
    truncated: the prompt lost its beginning or the answer its end.
    """

    row: str
    input_ids: array[int] | np.ndarray[Any, np.dtype[np.int32]]
    response_start: int
    response_bytes: int
    truncated: bool

    @property
    def response_tokens(self) -> int:
        """What there is to learn."""
        return len(self.input_ids) - self.response_start

    @property
    def labels(self) -> list[int]:
        """The input ids, -100 in place of the prompt's."""
        return [IGNORED] * self.response_start + self.input_ids[self.response_start :].tolist()


class _Texts(NamedTuple):
    prompt: str
    response: str


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[Encoded, ...]:
    """The examples in order, at most `max_tokens` (2 or more) tokens each.

    A row that is too long loses its prompt's beginning; an answer that is too long by itself loses
    its end and keeps one token of the prompt. What follows the end-of-turn token is left out, and
    a format without one gets the end-of-sequence token. Raises ModelError if the chat template
    can't be applied or its generation prompt doesn't begin the whole conversation.
    """
    if max_tokens < 2:
        raise DataError(
            f"data.max_tokens={max_tokens}: must be at least 2, one to read and one to learn. Raise it."
        )
    ends = _ends(tokenizer)
    texts = [_texts(example, tokenizer, ends=ends) for example in examples]
    prompts = tokens_of([text.prompt for text in texts], tokenizer)
    wholes = tokens_of([text.prompt + text.response for text in texts], tokenizer)
    # Where a token spans the border, generation never meets it: it starts from the prompt's own tokens.
    spanned = [i for i, prompt in enumerate(prompts) if wholes[i][: len(prompt)] != prompt]
    for i, response in zip(spanned, tokens_of([texts[i].response for i in spanned], tokenizer), strict=True):
        wholes[i] = prompts[i] + response
    return tuple(
        _encoded(
            example,
            tokenizer,
            prompt=whole[: len(prompt)],
            response=whole[len(prompt) :],
            max_tokens=max_tokens,
        )
        for example, prompt, whole in zip(examples, prompts, wholes, strict=True)
    )


def prompt_text(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """What the model reads before it answers, its special tokens written out.

    Without a chat template: a line "role: content" per message, then "assistant:"; the answer
    follows after a blank, which belongs to it.
    """
    if tokenizer.chat_template is not None:
        return _rendered(messages, tokenizer, add_generation_prompt=True)
    adds_start = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
    lines = "".join(f"{turn.role}: {turn.content}\n" for turn in messages)
    return f"{tokenizer.bos_token if adds_start else ''}{lines}assistant:"


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that encoded answers end with. Raises ModelError as `encode` does."""
    turns = (Message(role="user", content="?"), Message(role="assistant", content="!"))
    example = Example(id="any", messages=turns, intent=None, required=(), forbidden=(), slices={})
    ((*_, last),) = tokens_of([_texts(example, tokenizer, ends=_ends(tokenizer)).response], tokenizer)
    return last


def tokens_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each text, which holds its special tokens already."""
    if not texts:
        return []
    # Without warnings of the model's limit: who calls cuts what is too long.
    return cast(list[list[int]], tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"])


def shared_beginning(rows: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with, all of them prompt; 0 where they are too few to matter."""
    first = np.asarray(rows[0].input_ids)
    shared = min(row.response_start for row in rows) - 1
    for row in rows:
        differs = np.flatnonzero(first[:shared] != np.asarray(row.input_ids)[:shared])
        shared = int(differs[0]) if len(differs) else shared
    return shared if shared >= _LEAST_SHARED else 0


def _texts(example: Example, tokenizer: PreTrainedTokenizerBase, *, ends: tuple[str, ...]) -> _Texts:
    try:
        prompt = prompt_text(example.messages[:-1], tokenizer)
        if tokenizer.chat_template is None:
            return _Texts(prompt, _ended(f" {example.response}", tokenizer, ends=ends))
        whole = _rendered(example.messages, tokenizer, add_generation_prompt=False)
    except (TemplateError, TypeError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"model `{tokenizer.name_or_path}`, row {example.id}: its chat template refuses the messages "
            f"{[turn.role for turn in example.messages]} ({error}); it must accept them. If it knows no "
            "system role, set data.system_prompt=null or move system text into the first user message; "
            "let user and assistant take turns; or choose another model."
        ) from error
    if not whole.startswith(prompt) or not whole[len(prompt) :].strip():
        raise ModelError(
            f"model `{tokenizer.name_or_path}`, row {example.id}: its chat template asks for an answer after "
            f"{prompt[-60:]!r}, but writes a conversation with one as {whole[-60:]!r}; the former must begin "
            "the latter, or training and generation differ. Mend chat_template in the model's tokenizer "
            "files, or choose another model."
        )
    return _Texts(prompt, _ended(whole[len(prompt) :], tokenizer, ends=ends))


def _rendered(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool
) -> str:
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return cast(
        str, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    )


def _ends(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    # Some end-of-turn tokens are special only as added tokens, not by a name like eos_token.
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple({*added, *tokenizer.all_special_tokens})


def _ended(response: str, tokenizer: PreTrainedTokenizerBase, *, ends: tuple[str, ...]) -> str:
    if response.rstrip().endswith(ends):
        return response.rstrip()
    if tokenizer.eos_token is None:
        raise ModelError(
            f"model `{tokenizer.name_or_path}`: answers end in no special token and the tokenizer has no "
            "eos_token; one must be there, or the model never learns to stop. Set eos_token in the model's "
            "tokenizer files."
        )
    return response + str(tokenizer.eos_token)


def _encoded(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt: list[int],
    response: list[int],
    max_tokens: int,
) -> Encoded:
    kept = response[: max_tokens - 1]
    context = prompt[-(max_tokens - len(kept)) :]
    text = (
        example.response
        if len(kept) == len(response)
        else str(tokenizer.decode(kept, skip_special_tokens=True))
    )
    return Encoded(
        row=example.id,
        input_ids=array("i", context + kept),
        response_start=len(context),
        response_bytes=len(text.encode()),
        truncated=len(context) + len(kept) < len(prompt) + len(response),
    )
