"""Models of many shapes are packed and end as on the reference; others go to it, with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import transformers

from sweep.engines.byte_tokenizer import byte_tokenizer
from sweep.engines.inputs import Inputs
from sweep.engines.model import Base
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from tests.contracts.engine import RECIPE, job, reports

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 16}
PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralConfig", {**HEADS, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", HEADS),
    "gemma": ("GemmaConfig", HEADS),
    "gemma3": ("Gemma3TextConfig", {**HEADS, "sliding_window": 16}),
    "phi": ("PhiConfig", SHAPE),
    "phi3": ("Phi3Config", {**GROUPED, "pad_token_id": 0}),
    "gpt_neox": ("GPTNeoXConfig", SHAPE),
    "opt": ("OPTConfig", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}),
    "olmo2": ("Olmo2Config", GROUPED),
    "granite": ("GraniteConfig", GROUPED),
}
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", HEADS),
    "opt_with_dropout": (
        "OPTConfig",
        {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.1},
    ),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2}),
}
REASONS = {
    "gemma2": "its attention caps its scores",
    "opt_with_dropout": "it drops out units of its own",
    "gpt2": "it has no torch.nn.Linear layers",
    "bloom": "a row's loss depends on the row before it",
    "mamba": "a row's loss depends on the row before it",
}


@dataclass(frozen=True, kw_only=True)
class Random:
    """A model of this architecture with seeded random weights and the byte tokenizer."""

    kind: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def identity(self) -> str:
        return self.kind

    def load(self) -> Base:
        tokenizer = byte_tokenizer()
        config = getattr(transformers, self.kind)(**dict(self.settings), vocab_size=len(tokenizer))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.requires_grad_(False)
        return Base(model.eval(), tokenizer)


def source(kind: str, settings: dict[str, Any]) -> Random:
    return Random(kind=kind, settings=tuple(settings.items()))


@pytest.mark.parametrize("name", PACKED)
def test_it_is_packed_and_ends_as_on_the_reference(
    inputs: Inputs, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(RECIPE, lora_dropout=0.0, learning_rate=1e-2)
    model = replace(inputs, model=source(*PACKED[name]))
    jobs = [job(0, 32, trial=f"{i}", recipe=replace(recipe, lora_rank=4 + 4 * i)) for i in range(2)]
    references = reports(Solo(inputs=model, micro_batch=8), *jobs)
    found = reports(Packed(inputs=model, slots=2, tokens=700), *jobs)
    assert "solo" not in caplog.text
    for reference, report in zip(references, found, strict=True):
        assert report.validation_loss == pytest.approx(reference.validation_loss, rel=2e-5)
        assert report.train_loss == pytest.approx(reference.train_loss, rel=2e-5)


@pytest.mark.parametrize("name", ALONE)
def test_it_goes_to_the_reference_with_a_reason(
    inputs: Inputs, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = replace(inputs, model=source(*ALONE[name]))
    # PEFT refuses Mamba's other layers.
    recipe = replace(RECIPE, target_modules=("in_proj",)) if name == "mamba" else RECIPE
    (report,) = reports(Packed(inputs=model, slots=2, tokens=700), job(0, 16, recipe=recipe))
    assert report.state == "reached", report.error
    (line,) = [record.getMessage() for record in caplog.records if "solo" in record.getMessage()]
    assert REASONS[name] in line
