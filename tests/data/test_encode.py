from __future__ import annotations

import math
import pickle

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sweep.data.encode import IGNORED, encode, prompt_text
from sweep.data.example import Example, Message, Role
from sweep.errors import DataError, ModelError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(
    template: str | None, *, merges: tuple[str, ...] = (), eos: str | None = "<|im_end|>"
) -> PreTrainedTokenizerFast:
    """One token per byte, besides the merges, pairs of characters."""
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet()) + list(merges)
    pairs = [(merge[0], merge[1]) for merge in merges]
    model = models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=pairs)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<|im_start|>"])
    if eos is not None:
        fast.add_special_tokens({"eos_token": eos})
    fast.chat_template = template
    return fast


def example(*turns: tuple[Role, str], name: str = "row-1") -> Example:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Example(id=name, messages=messages, intent=None, required=(), forbidden=(), slices={})


CHAT = example(("system", "Be kind."), ("user", "Höw?"), ("assistant", "Sö: two\nlines."))


def test_the_answer_and_its_end_are_labelled_and_nothing_else() -> None:
    tokenizer = byte_tokenizer(CHATML)
    (row,) = encode([CHAT], tokenizer, max_tokens=200)

    prompt = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHöw?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(list(row.input_ids)) == prompt + "Sö: two\nlines.<|im_end|>"
    assert tokenizer.decode(list(row.input_ids[row.response_start :])) == "Sö: two\nlines.<|im_end|>"
    assert row.labels == [IGNORED] * row.response_start + list(row.input_ids[row.response_start :])
    # A byte-level tokenizer: one token per byte, and one for the end of the turn.
    assert (
        len(row.input_ids) - row.response_start
        == row.response_bytes + 1
        == len("Sö: two\nlines.".encode()) + 1
    )
    assert (row.row, row.truncated) == ("row-1", False)


def test_the_prompt_is_what_generation_starts_from() -> None:
    tokenizer = byte_tokenizer(CHATML)
    (row,) = encode([CHAT], tokenizer, max_tokens=200)
    started = tokenizer(prompt_text(CHAT.messages[:-1], tokenizer), add_special_tokens=False)["input_ids"]
    assert list(row.input_ids[: row.response_start]) == started


def test_earlier_answers_are_prompt() -> None:
    turns: list[tuple[Role, str]] = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    tokenizer = byte_tokenizer(CHATML)
    (row,) = encode([example(*turns)], tokenizer, max_tokens=200)
    assert tokenizer.decode(list(row.input_ids[row.response_start :])) == "d<|im_end|>"


def test_a_token_across_the_border_is_not_learnt() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = byte_tokenizer(template, merges=("ab",))
    (row,) = encode([example(("user", "xa"), ("assistant", "bab"))], tokenizer, max_tokens=50)
    pieces = tokenizer.convert_ids_to_tokens(list(row.input_ids))
    assert pieces == ["x", "a", "b", "ab", "<|im_end|>"]
    assert row.response_start == 2


@pytest.mark.parametrize("template", ["{% for m in messages %}[{{ m['content'] }}]{% endfor %}", None])
def test_a_format_without_an_end_gets_the_end_of_sequence(template: str | None) -> None:
    tokenizer = byte_tokenizer(template, eos="</s>")
    (row,) = encode([example(("user", "a"), ("assistant", "b"))], tokenizer, max_tokens=50)
    assert row.input_ids[-1] == tokenizer.eos_token_id
    assert row.labels[-1] == tokenizer.eos_token_id


def test_without_a_chat_template_each_message_is_a_line() -> None:
    tokenizer = byte_tokenizer(None, eos="</s>")
    (row,) = encode([CHAT], tokenizer, max_tokens=200)
    text = "system: Be kind.\nuser: Höw?\nassistant: Sö: two\nlines.</s>"
    assert tokenizer.decode(list(row.input_ids)) == text
    assert (
        tokenizer.decode(list(row.input_ids[: row.response_start]))
        == "system: Be kind.\nuser: Höw?\nassistant:"
    )


@pytest.mark.parametrize("max_tokens", range(2, 80))
def test_a_long_row_loses_its_beginning_and_a_long_answer_its_end(max_tokens: int) -> None:
    tokenizer = byte_tokenizer(CHATML)
    (whole,) = encode([CHAT], tokenizer, max_tokens=200)
    (row,) = encode([CHAT], tokenizer, max_tokens=max_tokens)

    prompt, answer = whole.input_ids[: whole.response_start], whole.input_ids[whole.response_start :]
    kept = answer[: max_tokens - 1]
    assert row.input_ids[row.response_start :] == kept
    assert row.response_start >= 1
    assert row.input_ids[: row.response_start] == prompt[-row.response_start :]
    assert len(row.input_ids) == min(max_tokens, len(whole.input_ids))
    assert row.truncated == (max_tokens < len(whole.input_ids))
    # A cut inside "ö" leaves half a character, which decodes to the three bytes of U+FFFD.
    assert row.response_bytes == pytest.approx(min(len(kept), whole.response_bytes), abs=2)


def test_rows_keep_their_order_and_survive_pickling() -> None:
    rows = [example(("user", "q" * i), ("assistant", "a" * i), name=f"id-{i}") for i in (5, 1, 3)]
    encoded = encode(rows, byte_tokenizer(CHATML), max_tokens=100)
    assert [row.row for row in encoded] == ["id-5", "id-1", "id-3"]
    assert [row.response_bytes for row in encoded] == [5, 1, 3]
    assert pickle.loads(pickle.dumps(encoded)) == encoded
    assert encode([], byte_tokenizer(CHATML), max_tokens=100) == ()


def test_a_template_that_starts_answers_otherwise_is_refused() -> None:
    thinking = CHATML.replace(
        "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}"
    )
    with pytest.raises(ModelError, match=r"row row-1: its chat template asks .*<think>.* must begin .* Mend"):
        encode([CHAT], byte_tokenizer(thinking), max_tokens=100)


def test_a_template_that_drops_the_answer_is_refused() -> None:
    deaf = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'assistant' %}")
    with pytest.raises(ModelError, match="the former must begin the latter"):
        encode([CHAT], byte_tokenizer(deaf.split("{% if")[0]), max_tokens=100)


def test_a_template_that_refuses_the_roles_names_the_row_and_the_cure() -> None:
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    with pytest.raises(ModelError, match=r"row row-1: .*no system role.*data.system_prompt=null"):
        encode([CHAT], byte_tokenizer(strict), max_tokens=100)


def test_a_tokenizer_that_cannot_end_an_answer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no eos_token; .* Set eos_token"):
        encode([CHAT], byte_tokenizer(None, eos=None), max_tokens=100)


@pytest.mark.parametrize("max_tokens", [1, 0, -5])
def test_room_for_less_than_two_tokens_is_refused(max_tokens: int) -> None:
    with pytest.raises(DataError, match=f"data.max_tokens={max_tokens}: must be at least 2"):
        encode([CHAT], byte_tokenizer(CHATML), max_tokens=max_tokens)


def test_lengths_past_the_models_limit_are_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.model_max_length = 5
    encode([CHAT], tokenizer, max_tokens=100)
    assert "longer than" not in capsys.readouterr().err
    assert not math.isinf(tokenizer.model_max_length)
