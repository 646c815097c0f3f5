"""Adapters as versions of MLflow's registered models: written, found again, promoted."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from sweep.errors import ConfigError, ModelError
from sweep.redaction import redact
from sweep.tracking.best import read_best
from sweep.tracking.store import Tracking, connect, first_line, listed, refused
from sweep.types import BestConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
# What the logged model imports when it answers.
REQUIREMENTS = ("sweep", "mlflow", "torch", "transformers", "peft", "safetensors")
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class RegisteredAdapter:
    """One version of a registered model. alias: that it was given when it was registered."""

    version: int
    alias: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What a model version is made of.

    folder: PEFT's files. base: what `load_with_adapter` rebuilds the base model from. system_prompt:
    that it was trained with, used where a request brings none. best_yaml: the configuration, if any.
    """

    folder: Path
    base: Mapping[str, object]
    system_prompt: str | None
    best_yaml: Path | None


def register_adapter(
    tracking: Tracking,
    adapter: Adapter,
    *,
    run_id: str,
    name: str,
    metrics: Mapping[str, float],
    alias: Literal["auto", "challenger"],
) -> RegisteredAdapter:
    """A version of the registered model `name` that MLflow can load and serve, linked to the run.

    Alias "auto": champion where the name has none yet, else challenger. The same adapter of the
    same run is registered once. Raises ModelError if the folder is no adapter or holds pickles.
    """
    key = f"{run_id}/{_checked_sha256(adapter.folder)}"
    client = connect(tracking.uri)
    with _told(tracking.uri), _default_store(tracking.uri):
        known = _version_with(client, name, key)
        if known is None:
            model_id = _log_model(client, run_id, name, adapter)
            _log_metrics(client, run_id, model_id, metrics)
            known = client.create_model_version(
                name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags={"sweep.key": key}
            )
        given = sorted(known.aliases)
        if not given:
            taken = CHAMPION in client.get_registered_model(name).aliases
            given = [CHAMPION if alias == "auto" and not taken else CHALLENGER]
            client.set_registered_model_alias(name, given[0], known.version)
    return RegisteredAdapter(
        version=int(known.version), alias=given[0], uri=f"models:/{name}/{known.version}"
    )


def load_best(uri: str, tracking: Tracking) -> BestConfig:
    """The configuration behind `models:/<name>/<version>` or `models:/<name>@<alias>`.

    Downloads that one file. Raises ConfigError that lists what exists.
    """
    client = connect(tracking.uri)
    import mlflow

    with _told(tracking.uri), tempfile.TemporaryDirectory() as folder:
        found = _find(client, uri)
        source = client.get_model_version_download_uri(found.name, found.version)
        try:
            file = mlflow.artifacts.download_artifacts(
                f"{source}/artifacts/best.yaml", dst_path=folder, tracking_uri=tracking.uri
            )
        except (mlflow.MlflowException, OSError) as error:
            raise ConfigError(
                f"{uri} was registered without a best.yaml, or it was deleted. Pass a version that a sweep's "
                "result was trained into, or the file itself with +best=<name>."
            ) from error
        return read_best(Path(file))


def promote(tracking: Tracking, name: str, version: int) -> None:
    """Make the version the champion; it is challenger no more. Raises ConfigError if there is none such."""
    client = connect(tracking.uri)
    with _told(tracking.uri):
        found = _find(client, f"models:/{name}/{version}")
        client.set_registered_model_alias(name, CHAMPION, found.version)
        if CHALLENGER in found.aliases:
            client.delete_registered_model_alias(name, CHALLENGER)


def _checked_sha256(folder: Path) -> str:
    """Over names and contents of the folder's files, all of which can be loaded without running code."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    pickles = [str(file.relative_to(folder)) for file in files if file.suffix.lower() in PICKLES]
    if pickles:
        raise ModelError(
            f"{folder} holds {', '.join(pickles)}: pickles run code when they are loaded, so only "
            "safetensors are registered. Delete them, or save the adapter again with PEFT's save_pretrained."
        )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if folder / name not in files:
            raise ModelError(f"{folder} must be a PEFT adapter, but {name} is missing in it.")
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _version_with(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """The version registered under the key. Makes the registered model where it does not exist."""
    if not any(model.name == name for model in client.search_registered_models(f"name = '{name}'")):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}' and tag.`sweep.key` = '{key}'")
    # A search leaves the aliases out.
    return client.get_model_version(name, versions[0].version) if versions else None


def _log_model(client: MlflowClient, run_id: str, name: str, adapter: Adapter) -> str:
    """The id of a logged model with the adapter's files and the code that answers with it, no pickles."""
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    # One column without a name takes lists of text as well as frames.
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", "long", 256),
                ParamSpec("system_prompt", "string", adapter.system_prompt or ""),
            ]
        ),
    )
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, model_type="lora-adapter")
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {"adapter": str(adapter.folder.resolve())}
        if adapter.best_yaml is not None:
            artifacts["best"] = str(shutil.copy(adapter.best_yaml, f"{folder}/best.yaml"))
        target = Path(folder, "model")
        mlflow.pyfunc.save_model(
            str(target),
            mlflow_model=model,
            python_model=str(Path(__file__).with_name("adapter_model.py")),
            artifacts=artifacts,
            model_config=dict(adapter.base),
            signature=signature,
            input_example=["Where is my order?"],
            # Given, or MLflow loads the model in another process to see what it imports.
            pip_requirements=[f"{package}=={installed(package).split('+')[0]}" for package in REQUIREMENTS],
        )
        client.log_model_artifacts(logged.model_id, str(target))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return logged.model_id


def _log_metrics(client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    for key, value in metrics.items():
        client.log_metric(run_id, key, value, model_id=model_id, synchronous=True)


def _find(client: MlflowClient, uri: str) -> ModelVersion:
    import mlflow

    match = re.fullmatch(r"models:/([^/@:]+)(?:/(\d+)|@([\w.-]+))", uri)
    if match is None:
        raise ConfigError(f"{uri!r} must be models:/<name>/<version> or models:/<name>@<alias>.")
    name, version, alias = match.groups()
    try:
        if version is not None:
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, alias)
    except mlflow.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        _list_instead(client, uri, name, error)


def _list_instead(client: MlflowClient, uri: str, name: str, error: Exception) -> NoReturn:
    found = client.search_registered_models(f"name = '{name}'")
    if not found:
        names = sorted(model.name for model in client.search_registered_models())
        raise ConfigError(f"{uri}: no model {name!r} is registered. There is {listed(names)}.") from error
    versions = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    aliases = [f"@{alias} ({version})" for alias, version in sorted(found[0].aliases.items())]
    known = listed([*map(str, versions), *aliases])
    raise ConfigError(f"{uri}: model {name!r} has no such version. There is {known}.") from error


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What MLflow refuses, or fails to do, as ConfigError."""
    import mlflow

    try:
        yield
    except mlflow.MlflowException as error:
        if refused(error):
            raise ConfigError(f"tracking.uri={redact(uri)}: {redact(str(error))}") from error
        raise ConfigError(
            f"tracking.uri={redact(uri)} failed: {first_line(error)}. What was computed is kept. Once the "
            "store answers, run the same command again: it goes on from here."
        ) from error


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Registering by model id asks MLflow's default store, not the client's."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
