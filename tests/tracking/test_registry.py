from __future__ import annotations

import contextlib
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sweep.errors import ConfigError, ModelError, StudyError
from sweep.tracking.mlflow import Tracking, connect
from sweep.tracking.registry import load_best, promote, read_best, register_adapter, write_best
from sweep.types import BestConfig, Recipe, Score, Verdict

BEST = BestConfig(
    recipe=Recipe(
        learning_rate=1e-05,
        batch_size=8,
        weight_decay=0.0,
        lora_rank=16,
        lora_alpha=32.0,
        lora_dropout=0.1,
        target_modules=("q_proj", "v_proj"),
        rslora=False,
        warmup_fraction=0.1,
        schedule="wsd",
        epochs=1e16,
        max_gradient_norm=1.0,
    ),
    model={"_target_": "sweep.engines.model.Pretrained", "path": "a/b", "revision": "12e4567", "dtype": "no"},
    experiment="support_bot",
    study="support_bot",
    trial=12,
    horizon=4096,
    seed=0,
    data_fingerprint="1e10",
    fingerprint="12345e67" * 8,
    validation=Score(value=1.22, standard_error=0.012, examples=200, metrics={"bits_per_byte": 0.5}),
    confirm=Score(value=1.2345, standard_error=0.01, examples=400),
    default_confirm=Score(value=1.31, standard_error=0.011, examples=400),
    verdicts=(
        Verdict(
            check="beats_default",
            passed=False,
            severity="warn",
            value=0.1,
            limit=0.2,
            message="only 0.1\nbest: {trial: 99}",
        ),
    ),
    git_commit="0123456",
    mlflow_run=None,
)
BASE = {"_target_": "sweep.engines.model.RandomLlama", "seed": 0}

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
    data_fingerprint=TEXTS,
    fingerprint=TEXTS,
    validation=SCORES,
    confirm=SCORES,
    default_confirm=SCORES,
    verdicts=st.lists(VERDICTS, max_size=2).map(tuple),
    git_commit=st.none() | TEXTS,
    mlflow_run=st.none() | TEXTS,
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
    assert read_best(write_best(best, path)) == best


def test_hydra_reads_the_same_values(tmp_path: Path) -> None:
    told = replace(BEST, model={**BEST.model, "template": "${not.a.reference}"})
    node = OmegaConf.to_container(OmegaConf.load(write_best(told, tmp_path / "best.yaml")), resolve=True)
    assert node["recipe"] == {**asdict(BEST.recipe), "target_modules": ["q_proj", "v_proj"]}
    assert node["model"] == told.model
    assert node["best"]["fingerprint"] == BEST.fingerprint
    assert node["best"]["data_fingerprint"] == "1e10"
    assert node.keys() == {"recipe", "model", "best"}


def test_the_file_says_where_it_comes_from_and_how_to_use_it(tmp_path: Path) -> None:
    lines = write_best(BEST, tmp_path / "found.yaml").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert lines[0] == "# @package _global_"
    assert "# Best recipe of study support_bot: trial 12, seed 0, 4096 examples." in comments
    assert "# confirm     this recipe   1.2345 ± 0.0100 (standard error, 400 examples)" in comments
    assert "# Train with it:  python -m sweep.train +experiment=support_bot +best=found" in comments
    assert any("beats_default: only 0.1 best" in line for line in comments)
    assert lines[len(comments)] == ""


def test_the_file_of_the_same_study_is_replaced_whole(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "deep/best.yaml")
    later = replace(BEST, trial=13)
    assert read_best(write_best(later, path)) == later
    assert list(path.parent.iterdir()) == [path]


def test_the_file_of_another_study_is_never_overwritten(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "support_bot.yaml")
    reviewed = path.read_text()
    other = replace(BEST, fingerprint="abcdef0123", seed=1)
    with pytest.raises(
        StudyError, match=r"fingerprint: 12345e67.* there, abcdef0123 now; seed: 0 there, 1 now"
    ) as told:
        write_best(other, path)
    beside = tmp_path / "support_bot.abcdef01.yaml"
    assert str(path) in str(told.value)
    assert f"{beside}: use it with +best=support_bot.abcdef01" in str(told.value)
    assert path.read_text() == reviewed
    assert read_best(beside) == other


@pytest.mark.parametrize("content", ["", "recipe: {}", "{", "best: 3"])
def test_a_file_that_is_no_result_is_never_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "support_bot.yaml"
    path.write_text(content)
    with pytest.raises(StudyError, match="no result of a sweep"):
        write_best(BEST, path)
    assert path.read_text() == content


def test_hand_written_numbers_are_read_as_hydra_reads_them(tmp_path: Path) -> None:
    path = write_best(BEST, tmp_path / "best.yaml")
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
        ("model:", "modell:", r"model must be a mapping"),
        ("recipe:", "recipe: [", r"is not YAML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_best(BEST, tmp_path / "best.yaml")
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


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    with contextlib.chdir(folder):
        connect(uri).create_experiment("registry")
    return Tracking(uri=uri, experiment="registry", register=True)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def new_run(tracking: Tracking) -> str:
    client = connect(tracking.uri)
    return client.create_run(client.get_experiment_by_name("registry").experiment_id).info.run_id


def register(tracking: Tracking, adapter: Path, name: str, run_id: str, **changes):
    told = {"best_yaml": None, "base": BASE, "metrics": {"golden_loss": 1.5}, "alias": "auto", **changes}
    return register_adapter(tracking, run_id=run_id, name=name, adapter_folder=adapter, **told)


def test_the_first_adapter_is_champion_and_the_next_a_challenger(tracking: Tracking, adapter: Path) -> None:
    first = register(tracking, adapter, "bot", new_run(tracking))
    assert (first.version, first.alias, first.uri) == (1, "champion", "models:/bot/1")
    second = register(tracking, adapter, "bot", new_run(tracking))
    assert (second.version, second.alias) == (2, "challenger")
    promote(tracking, "bot", 2)
    assert connect(tracking.uri).get_registered_model("bot").aliases == {"champion": 2}
    asked = register(tracking, adapter, "careful", new_run(tracking), alias="challenger")
    assert asked.alias == "challenger"


def test_the_same_adapter_is_registered_once(tracking: Tracking, adapter: Path) -> None:
    run_id = new_run(tracking)
    first = register(tracking, adapter, "once", run_id)
    assert register(tracking, adapter, "once", run_id) == first
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert register(tracking, adapter, "once", run_id).version == 2


def test_a_version_is_linked_to_its_run_and_shows_its_metrics(
    tracking: Tracking, adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = new_run(tracking)
    register(tracking, adapter, "linked", run_id)
    assert capfd.readouterr() == ("", "")
    client = connect(tracking.uri)
    run = client.get_run(run_id)
    version = client.get_model_version("linked", "1")
    (output,) = run.outputs.model_outputs
    assert version.run_id == run_id
    assert version.source == f"models:/{output.model_id}"
    logged = client.get_logged_model(output.model_id)
    assert [(metric.key, metric.value) for metric in logged.metrics] == [("golden_loss", 1.5)]
    assert run.data.metrics == {"golden_loss": 1.5}
    files = {file.name for file in Path(logged.artifact_location).rglob("*") if file.is_file()}
    assert {"adapter_model.safetensors", "adapter_model.py"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".bin", ".pt"))]


def test_the_best_config_comes_back_from_the_registry(
    tracking: Tracking, adapter: Path, tmp_path: Path
) -> None:
    file = write_best(BEST, tmp_path / "support_bot.yaml")
    register(tracking, adapter, "kept", new_run(tracking), best_yaml=file)
    assert load_best("models:/kept/1", tracking) == BEST
    assert load_best("models:/kept@champion", tracking) == BEST


def test_what_is_not_registered_is_answered_with_what_is(tracking: Tracking, adapter: Path) -> None:
    register(tracking, adapter, "known", new_run(tracking))
    with pytest.raises(ConfigError, match=r"no model 'unknown' is registered\. There is .*known"):
        load_best("models:/unknown/1", tracking)
    for uri in ("models:/known/7", "models:/known@staging"):
        with pytest.raises(ConfigError, match=r"no such version\. There is 1, @champion \(1\)"):
            load_best(uri, tracking)
    with pytest.raises(ConfigError, match=r"no such version"):
        promote(tracking, "known", 7)
    with pytest.raises(ConfigError, match=r"registered without a best\.yaml"):
        load_best("models:/known/1", tracking)
    with pytest.raises(ConfigError, match=r"must be models:/<name>/<version>"):
        load_best("models:/known/../1", tracking)
    with pytest.raises(ConfigError, match=r"not found"):
        register(tracking, adapter, "known", "0" * 32)


@pytest.mark.parametrize("name", ["adapter_model.bin", "deep/optimizer.pt", "a.PKL"])
def test_pickles_are_refused(tracking: Tracking, adapter: Path, name: str) -> None:
    (adapter / name).parent.mkdir(exist_ok=True)
    (adapter / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"{name}: pickles run code"):
        register(tracking, adapter, "unsafe", "any")


def test_a_folder_that_is_no_adapter_is_refused(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="must be a PEFT adapter"):
        register(tracking, tmp_path / "empty", "empty", "any")


def test_the_default_store_of_the_process_stays_what_it_was(
    tracking: Tracking, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    register(tracking, adapter, "default", new_run(tracking))
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"


def test_a_registered_adapter_answers_prompts(
    tracking: Tracking, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    loads = []

    def load_with_adapter(base, folder):
        loads.append((base, (folder / "adapter_model.safetensors").read_bytes()))
        return "model", "tokenizer"

    def generate(model, tokenizer, prompts, *, system_prompt, max_new_tokens):
        return [f"{prompt} {system_prompt} {max_new_tokens}" for prompt in prompts]

    for module, function in (("model", load_with_adapter), ("generate", generate)):
        fake = ModuleType(module)
        setattr(fake, function.__name__, function)
        monkeypatch.setitem(sys.modules, f"sweep.engines.{module}", fake)
    uri = register(tracking, adapter, "answers", new_run(tracking)).uri
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(tracking.uri)
    try:
        model = mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert loads == []
    assert model.predict(["a", "b"]) == ["a None 256", "b None 256"]
    assert model.predict(pd.DataFrame({"prompt": ["c"]})) == ["c None 256"]
    assert model.predict(["d"], params={"max_new_tokens": 4, "system_prompt": "be kind"}) == ["d be kind 4"]
    assert loads == [(BASE, b"weights")]


def test_floats_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    import numpy as np

    path = write_best(
        replace(BEST, confirm=replace(BEST.confirm, value=np.float64(0.1))), tmp_path / "best.yaml"
    )
    assert yaml.safe_load(path.read_text())["best"]["confirm"]["value"] == 0.1
    assert not math.isnan(read_best(path).confirm.value)
