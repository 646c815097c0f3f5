"""Replies against transformers' own `generate`, one prompt at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from sweep.data.encode import prompt_text
from sweep.data.example import Message
from sweep.engines import generate as module
from sweep.engines.generate import generate, reply_batches
from sweep.engines.model import Base
from sweep.errors import ModelError
from sweep.types import Asking, Prompt

from .conftest import TINY
from .test_architectures import ALONE, PACKED, source

SHAPES = {**PACKED, **ALONE}


def prompts(count: int, *, longest: int = 60, every: int = 2) -> tuple[Prompt, ...]:
    """Of mixed length. every: 1 for a system turn before each, 2 for one before every other."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        text = "".join(draw.choice("abcdefgh ?") for _ in range(draw.randrange(1, longest)))
        before = (("system", "be kind"),) if number % every == every - 1 else ()
        found.append(Prompt(f"row-{number}", (*before, ("user", text))))
    return tuple(found)


def loud(base: Base) -> Base:
    """The same model with larger weights: what it writes then hangs on all that it has read."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in base.model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return base


def theirs(base: Base, prompt: Prompt, most: int, ends: list[int]) -> list[int]:
    turns = tuple(Message(role=role, content=content) for role, content in prompt.turns)  # type: ignore[arg-type]
    text = prompt_text(turns, base.tokenizer)
    encoded = base.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    written: Any = base.model.generate(  # type: ignore[operator]
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=ends,
    )
    return written[0, encoded.input_ids.shape[1] :].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma", "gemma3", "opt", "bloom", "mamba"])
def test_replies_are_those_of_transformers(name: str, every: int) -> None:
    """Also where all prompts begin alike, and that is read once for all of them."""
    kind, settings = SHAPES[name]
    # Tied to its embeddings, a random model repeats what it read last.
    base = loud(source(kind, {**settings, "tie_word_embeddings": False}).load())
    asking = Asking(prompts(9, every=every), 12)
    own = base.tokenizer.eos_token_id
    free = [theirs(base, prompt, 12, [own]) for prompt in asking.prompts]
    assert len({tuple(tokens) for tokens in free}) == 9
    # What some rows write in the middle: they end at different times, as rows do.
    ends = [own, free[0][3], free[1][5], free[2][7]]
    base.model.generation_config.eos_token_id = ends  # type: ignore[union-attr]
    expected = [theirs(base, prompt, 12, ends) for prompt in asking.prompts]
    assert len({len(tokens) for tokens in expected}) > 2
    for room in (1, 200, 10_000):
        found: dict[int, Any] = {}
        for batch in reply_batches(*base, asking, tokens_per_batch=room):
            found |= batch
        for place, tokens in enumerate(expected):
            reply = found[place]
            assert reply.row == f"row-{place}"
            assert reply.text == base.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            assert (reply.tokens, reply.ended) == (len(tokens), tokens[-1] in ends)


@pytest.mark.parametrize(("name", "once"), [("llama", True), ("gemma3", False), ("mamba", False)])
def test_what_all_prompts_begin_with_is_read_once_where_nothing_tells_it_apart(name: str, once: bool) -> None:
    base = source(*SHAPES[name]).load()
    asking = Asking(prompts(5, longest=20, every=1), 3)
    read: list[tuple[int, ...]] = []
    base.model.register_forward_pre_hook(
        lambda model, given, named: read.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    found = generate(*base, asking)
    longest = max(reply.prompt_tokens for reply in found)
    (count, beginning), *_ = read
    if once:
        assert count == 1
        assert beginning > len("be kind")
    shared = beginning if once else 0
    assert (5, longest - shared) in read


def test_batches_keep_to_their_room_longest_prompts_first() -> None:
    asking = Asking(prompts(20), 4)
    batches = list(reply_batches(*TINY.load(), asking, tokens_per_batch=300))
    longest = [max(reply.prompt_tokens for reply in batch.values()) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(
        (most + 4) * len(batch) <= 300 or len(batch) == 1
        for most, batch in zip(longest, batches, strict=True)
    )
    assert sorted(place for batch in batches for place in batch) == list(range(20))
    assert len(batches) < 20


def test_seconds_count_from_the_batchs_beginning_to_the_last_token() -> None:
    base = loud(TINY.load())
    asking = Asking(prompts(6, longest=9, every=1), 12)
    free = generate(*base, asking)
    first = base.tokenizer(free[0].text[:1], add_special_tokens=False).input_ids
    base.model.generation_config.eos_token_id = first  # type: ignore[union-attr]
    found = sorted(generate(*base, asking), key=lambda reply: reply.tokens)
    assert found[0].tokens < found[-1].tokens == 12
    seconds = [reply.seconds for reply in found]
    assert seconds == sorted(seconds)
    assert 0.0 < seconds[0] < seconds[-1]


def test_a_prompt_that_is_too_long_loses_its_beginning() -> None:
    base = loud(source(*PACKED["gpt_neox"]).load())
    text = "".join(random.Random(1).choice("abcdefgh ") for _ in range(400))
    (reply,) = generate(*base, Asking((Prompt("long", (("user", text),)),), 8))
    assert reply.prompt_tokens == 256 - 8
    tokens = base.tokenizer(
        prompt_text((Message(role="user", content=text),), base.tokenizer), add_special_tokens=False
    ).input_ids
    kept: Any = base.model.generate(  # type: ignore[operator]
        input_ids=torch.tensor([tokens[-248:]]),
        attention_mask=torch.ones(1, 248, dtype=torch.long),
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=base.tokenizer.eos_token_id,
    )
    assert reply.text == base.tokenizer.decode(kept[0, 248:], skip_special_tokens=True).strip()


def test_answers_that_leave_no_position_for_a_prompt_are_refused() -> None:
    base = source(*PACKED["llama"]).load()
    with pytest.raises(ModelError, match=r"has 256 positions.*up to 256 tokens.*shorter answers"):
        generate(*base, Asking(prompts(1), 256))


def test_the_token_that_training_ends_answers_with_ends_a_reply() -> None:
    """Where the chat format has an end of turn of its own, which neither model nor tokenizer names."""
    base = loud(TINY.load())
    asking = Asking(prompts(4), 12)
    written = theirs(base, asking.prompts[0], 12, [base.tokenizer.eos_token_id])
    marker = base.tokenizer.convert_ids_to_tokens(written[5])
    assert written.index(written[5]) == 5
    assert not generate(*base, asking)[0].ended
    template = str(base.tokenizer.chat_template)
    asked = "{% if add_generation_prompt"
    # Only conversations with an answer, so that the prompts stay what they were.
    closing = "{% if not add_generation_prompt %}MARKER{% endif %}"
    base.tokenizer.chat_template = template.replace(asked, closing.replace("MARKER", str(marker)) + asked)
    base.tokenizer.add_special_tokens({"additional_special_tokens": [marker]})
    reply = generate(*base, asking)[0]
    assert (reply.tokens, reply.ended) == (6, True)


def test_out_of_memory_halves_the_batch_and_changes_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    base = loud(TINY.load())
    asking = Asking(prompts(9, longest=20, every=1), 6)
    expected = [(reply.row, reply.text) for reply in generate(*base, asking)]
    whole, tried, done = module._batch, [], []

    def cramped(model: Any, given: Any, *others: Any) -> Any:
        tried.append(len(given))
        if sum(map(len, given)) > 180:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        done.append(len(given))
        return whole(model, given, *others)

    monkeypatch.setattr(module, "_batch", cramped)
    assert [(reply.row, reply.text) for reply in generate(*base, asking)] == expected
    assert tried[:3] == [9, 4, 2]
    assert sum(done) == 9
    assert max(done) > 1


def test_a_prompt_that_does_not_fit_alone_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(module, "_batch", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB"):
        generate(*TINY.load(), Asking(prompts(3), 4))


def test_nothing_asked_is_nothing_answered() -> None:
    assert generate(*TINY.load(), Asking((), 4)) == ()
