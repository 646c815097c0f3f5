"""docs/configuration.md is what its script makes, holds every key, and what it says of spaces holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import yaml

from sweep.composition import compose_plain
from sweep.grammar import spell_out
from sweep.search.space import Space
from tests.documents import CONFIGURATION, keys


def test_the_page_is_what_the_script_makes() -> None:
    made = importlib.util.spec_from_file_location("made", CONFIGURATION.with_name("make_configuration.py"))
    assert made
    assert made.loader
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    assert CONFIGURATION.read_text(encoding="utf-8") == module.page(), "run make docs"


def test_it_holds_every_key(tmp_path: Path) -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    plain = compose_plain(["+experiment=smoke"], tmp_path).plain
    # Limits stand on one line of their file, and of the page.
    lost = [key for key in keys(plain, leaves=True) if f"| `{key}` |" not in text]
    assert [key for key in lost if f"| `{key.rpartition('.')[0]}` | keys and values |" not in text] == []


def test_both_spellings_of_a_space_mean_the_same() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    pairs = re.findall(r"^\| `([^`]+\))` \| `(\{.+?\})` \|", text, re.MULTILINE)
    assert len(pairs) == 5
    for written, spelled in pairs:
        name = "weight_decay" if "." in written or "e-" in written else "lora_rank"
        ours = Space.from_mapping({name: spell_out(name, written)})
        assert ours == Space.from_mapping({name: yaml.safe_load(spelled)})
