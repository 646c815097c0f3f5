"""MLflow is fed without pickles and looked at on this machine alone; a registry decides nothing that runs."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from mlflow.cli import cli

import sweep
from sweep.engines.model import Pretrained, describe, from_description
from sweep.errors import ConfigError, ModelError
from sweep.tracking.mlflow import Tracking
from sweep.tracking.registry import load_best
from sweep.tracking.store import quieten


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A store for all: MLflow takes ten seconds to make one."""
    folder = tmp_path_factory.mktemp("registry")
    return Tracking(uri=f"sqlite:///{folder}/mlflow.db", experiment="mine", register=False)


def test_mlflow_loads_no_pickles_and_sends_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION, MLFLOW_DISABLE_TELEMETRY

    for variable in (MLFLOW_ALLOW_PICKLE_DESERIALIZATION, MLFLOW_DISABLE_TELEMETRY):
        # First set, so that what `quieten` sets is taken back.
        monkeypatch.setenv(variable.name, "")
        monkeypatch.delenv(variable.name)
    quieten()
    assert MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
    assert MLFLOW_DISABLE_TELEMETRY.get() is True


def test_the_command_to_look_at_results_serves_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names no host, so MLflow's default holds."""
    monkeypatch.delenv("MLFLOW_HOST", raising=False)
    command = cli.get_command(click.Context(cli), "ui")
    assert command is not None
    with command.make_context("ui", []) as context:
        assert context.params["host"] == "127.0.0.1"
    sources = Path(sweep.__file__).parent.rglob("*.py")
    assert not [path for path in sources if "--host" in path.read_text("utf-8")]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "sweep.engines.model.importlib",
        "sweep.engines.model.Base",
        "evil.Pretrained",
        None,
        ["a"],
    ],
)
def test_a_registered_description_names_no_other_class(target: object) -> None:
    described = describe(Pretrained(path="a/b", revision=None, dtype="float32", trust_remote_code=False))
    with pytest.raises(ModelError, match="names no model"):
        from_description({**described, "_target_": target})


@pytest.mark.parametrize(
    "uri",
    [
        "models:/../../x/1",
        "models:/x/../y",
        "models:/x/1/../../etc",
        "models:/x@a/b",
        "file:///etc/passwd",
        "https://theirs/best.yaml",
        "runs:/0/best.yaml",
        "models:/x@champion\n",
    ],
)
def test_a_registered_configuration_is_named_by_model_and_version(uri: str, tracking: Tracking) -> None:
    with pytest.raises(ConfigError, match="must be models:/<name>/<version> or models:/<name>@<alias>"):
        load_best(uri, tracking)
