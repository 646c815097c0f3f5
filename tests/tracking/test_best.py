from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sweep.errors import ConfigError
from sweep.tracking.best import Written, read_best, write_best
from sweep.types import BestConfig, Recipe, Score, Verdict
from tests.tracking.sweeps import BEST

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["1e-5", "1_000", "0x1F", "12:30:45", "null", "on", "${a.b}", "=", ""]
)
SCORES = st.builds(
    Score, value=FLOATS, standard_error=FLOATS, examples=st.integers(), metrics=st.dictionaries(TEXTS, FLOATS)
)
VERDICTS = st.builds(Verdict, check=TEXTS, value=FLOATS, limit=FLOATS, message=TEXTS)
RECIPES = st.builds(
    Recipe,
    learning_rate=FLOATS,
    weight_decay=FLOATS,
    lora_alpha=FLOATS,
    lora_dropout=FLOATS,
    target_modules=TEXTS | st.lists(TEXTS).map(tuple),
    warmup_fraction=FLOATS,
    epochs=FLOATS,
    max_gradient_norm=FLOATS,
)
BESTS = st.builds(
    BestConfig,
    recipe=RECIPES,
    model=st.dictionaries(TEXTS, TEXTS | FLOATS | st.none() | st.booleans() | st.lists(TEXTS)),
    experiment=TEXTS,
    study=TEXTS,
    horizon=st.integers(min_value=100),
    stop=st.integers(1, 100),
    data_fingerprint=TEXTS,
    fingerprint=TEXTS,
    validation=SCORES,
    confirm=SCORES,
    default_confirm=st.none() | SCORES,
    test=st.none() | SCORES,
    default_test=st.none() | SCORES,
    baselines=st.dictionaries(TEXTS, SCORES, max_size=2),
    verdicts=st.lists(VERDICTS, max_size=2).map(tuple),
    git_commit=st.none() | TEXTS,
    mlflow_run=st.none() | TEXTS,
    overrides=st.lists(TEXTS, max_size=3).map(tuple),
)


@given(best=BESTS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_best_config_reads_back_equal(best: BestConfig, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.unlink(missing_ok=True)
    assert read_best(write_best(best, path).path) == best


def test_hydra_reads_the_same_values_and_no_model_to_merge(tmp_path: Path) -> None:
    told = replace(BEST, model={**BEST.model, "template": "${not.a.reference}"})
    node = OmegaConf.to_container(OmegaConf.load(write_best(told, tmp_path / "best.yaml").path), resolve=True)
    assert node["recipe"] == {**asdict(BEST.recipe), "target_modules": ["q_proj", "v_proj"]}
    assert node["best"]["model"] == told.model
    assert node["best"]["fingerprint"] == BEST.fingerprint
    assert node["best"]["data_fingerprint"] == "1e10"
    assert node.keys() == {"recipe", "best"}


def test_the_file_says_where_it_comes_from_and_how_to_use_it(tmp_path: Path) -> None:
    lines = write_best(BEST, tmp_path / "found.yaml").path.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert lines[0] == "# @package _global_"
    assert "# Best recipe of study support_bot: trial 12, seed 0, 1024 of 4096 examples." in comments
    assert "# decision    no_evidence" in comments
    assert "# test        this recipe   1.2456 ± 0.0200 (standard error, 300 examples)" in comments
    assert "# confirm     this recipe   1.2345 ± 0.0100 (standard error, 400 examples)" in comments
    assert "#             few_shot      1.4000 ± 0.0300 (standard error, 400 examples)" in comments
    command = "python -m sweep.train +experiment=support_bot 'space.lora_rank=choice(8, 16)' +best=found"
    assert f"# Train with it:  {command}" in comments
    assert any("beats_default: only 0.1 best" in line for line in comments)
    assert lines[len(comments)] == ""


def test_defaults_that_came_to_no_end_have_no_score(tmp_path: Path) -> None:
    told = replace(BEST, default_confirm=None, default_test=None)
    path = write_best(told, tmp_path / "found.yaml").path
    assert "default" not in path.read_text().replace("beats_default", "")
    assert read_best(path) == told


def test_a_file_from_before_confirmation_with_fresh_seeds_reads_as_not_shown_to_be_better(
    tmp_path: Path,
) -> None:
    path = write_best(BEST, tmp_path / "found.yaml").path
    node = yaml.safe_load(path.read_text())
    later = ("test", "default_test", "baselines", "decision", "stop", "unit")
    assert all(node["best"].pop(name) for name in later)
    path.write_text(yaml.safe_dump(node))
    assert read_best(path) == replace(
        BEST, test=None, default_test=None, baselines={}, decision="no_evidence", stop=BEST.horizon, unit=1
    )


def test_the_file_of_the_same_study_is_replaced_whole(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "deep/best.yaml").path
    later = replace(BEST, trial=13)
    assert write_best(later, path) == Written(path=path, notice=None)
    assert read_best(path) == later
    assert list(path.parent.iterdir()) == [path]


def test_the_file_of_another_study_is_never_overwritten(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "support_bot.yaml").path
    reviewed = path.read_text()
    other = replace(BEST, fingerprint="abcdef0123", seed=1)
    written = write_best(other, path)
    assert written.path == tmp_path / "support_bot.abcdef01.yaml"
    assert written.notice is not None
    assert written.notice.startswith(f"{path} holds the result of another study")
    assert re.search("fingerprint: 12345e67.* there, abcdef0123 now; seed: 0 there, 1 now", written.notice)
    assert f"{written.path}: use it with +best=support_bot.abcdef01" in written.notice
    assert path.read_text() == reviewed
    assert read_best(written.path) == other


@pytest.mark.parametrize("content", ["", "recipe: {}", "{", "best: 3"])
def test_a_file_that_is_no_result_is_never_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "support_bot.yaml"
    path.write_text(content)
    written = write_best(BEST, path)
    assert "no result of a sweep" in (written.notice or "")
    assert path.read_text() == content
    assert read_best(written.path) == BEST


def test_hand_written_numbers_are_read_as_hydra_reads_them(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "best.yaml").path
    path.write_text(path.read_text().replace("learning_rate: 1.0e-05", "learning_rate: 3e-4"))
    assert read_best(path).recipe.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lora_rank: 16", "lora_rank: many", r"recipe\.lora_rank must be a whole number, got 'many'"),
        ("lora_rank: 16", "lora_rang: 16", r"recipe lacks lora_rank"),
        ("lora_rank: 16", "lora_rank: 16\n  extra: 1", r"recipe has unknown keys extra"),
        (
            "learning_rate: 1.0e-05",
            "learning_rate: fast",
            r"recipe\.learning_rate must be a number, got 'fast'",
        ),
        ("rslora: false", "rslora: 2", r"recipe\.rslora must be true or false"),
        ("examples: 400", "examples: few", r"best\.confirm\.examples must be a whole number"),
        ("trial: 12", "trial: 12\n  when: now", r"best has unknown keys when"),
        (
            "decision: no_evidence",
            "decision: maybe",
            r"best\.decision is 'maybe'; must be one of ship, no_evidence, use_baseline",
        ),
        ("resolved: 0.5", "resolved: 0.5\n      odd: 1", r"best\.baselines\.few_shot has unknown keys odd"),
        ("model:", "modell:", r"best lacks model"),
        ("recipe:", "recipe: [", r"is not YAML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_best(BEST, tmp_path / "best.yaml").path
    body = path.read_text()
    assert old in body
    head, _, rest = body.partition("\n\n")
    path.write_text(head + "\n\n" + rest.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_best(path)


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    write_best(BEST, tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml does not exist; .* holds other"):
        read_best(tmp_path / "missing.yaml")


def test_floats_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    import numpy as np

    told = replace(BEST, confirm=replace(BEST.confirm, value=np.float64(0.1)))
    path = write_best(told, tmp_path / "best.yaml").path
    assert yaml.safe_load(path.read_text())["best"]["confirm"]["value"] == 0.1
    assert not math.isnan(read_best(path).confirm.value)


def test_a_model_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    told = replace(BEST, model="RandomLlama")
    with pytest.raises(ConfigError, match=r"best\.model must be a mapping, got 'RandomLlama'"):
        read_best(write_best(told, tmp_path / "best.yaml").path)
