from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from sweep.errors import ConfigError, ModelError
from sweep.tracking.best import write_best
from sweep.tracking.mlflow import Tracking
from sweep.tracking.registry import Adapter, load_best, promote, register_adapter
from sweep.tracking.store import connect
from sweep.types import Reply
from tests.tracking.sweeps import BEST

BASE = {"_target_": "sweep.engines.model.RandomLlama", "seed": 0}


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


def new_run(tracking: Tracking) -> str:
    client = connect(tracking.uri)
    return client.create_run(client.get_experiment_by_name("registry").experiment_id).info.run_id


def register(tracking: Tracking, adapter: Path, name: str, run_id: str, **changes):
    parts = {"system_prompt": None, "best_yaml": None, "base": BASE}
    parts |= {key: changes.pop(key) for key in parts.keys() & changes.keys()}
    told = {"metrics": {"golden_loss": 1.5}, "alias": "auto", **changes}
    return register_adapter(tracking, Adapter(folder=adapter, **parts), run_id=run_id, name=name, **told)


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
    file = write_best(BEST, tmp_path / "support_bot.yaml").path
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

    def generate(model, tokenizer, asking):
        return [
            Reply(row, f"{row} {turns} {asking.max_tokens}", 0, 0, 0.0, True) for row, turns in asking.prompts
        ]

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
    assert model.predict(["a", "b"]) == ["0 (('user', 'a'),) 256", "1 (('user', 'b'),) 256"]
    assert model.predict(pd.DataFrame({"prompt": ["c"]})) == ["0 (('user', 'c'),) 256"]
    assert model.predict(["d"], params={"max_new_tokens": 4, "system_prompt": "be kind"}) == [
        "0 (('system', 'be kind'), ('user', 'd')) 4"
    ]
    assert loads == [(BASE, b"weights")]


def test_a_store_that_is_away_is_an_error_that_says_how_to_go_on(tracking: Tracking, adapter: Path) -> None:
    away = Tracking(uri="http://127.0.0.1:1", experiment="registry", register=True)
    with pytest.raises(ConfigError, match=r"tracking\.uri=http://127.*failed.*run the same command again"):
        register(away, adapter, "bot", "0" * 32)
    with pytest.raises(ConfigError, match="run the same command again"):
        load_best("models:/bot/1", away)
