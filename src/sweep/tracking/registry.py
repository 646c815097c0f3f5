"""The best configuration as a file that Hydra reads, and adapters in MLflow's model registry."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_type_hints

import yaml

from sweep.errors import ConfigError, ModelError, StudyError
from sweep.tracking.mlflow import Tracking, connect, redact
from sweep.types import BestConfig, Recipe, Score, Verdict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
# What the logged model imports when it answers.
REQUIREMENTS = ("sweep", "mlflow", "torch", "transformers", "peft", "safetensors")
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")

_SCORES = ("validation", "confirm", "default_confirm")
# Hydra reads 1e5 and 12e4567 as numbers where YAML 1.1 reads text, so text that starts like one is quoted.
_NUMBER_LIKE = re.compile(r"[-+.\d]")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RegisteredAdapter:
    """One version of a registered model. alias: that it was given when it was registered."""

    version: int
    alias: str
    uri: str


def write_best(best: BestConfig, path: Path) -> Path:
    """The path, which now holds a config for `+best=<name>`. It appears whole or not at all.

    A file of the same study is replaced. A file of another study is left alone: the new one goes
    beside it as `<name>.<fingerprint>.yaml`, and StudyError says so.
    """
    differences = _differences(best, path) if path.exists() else []
    if not differences:
        _replace(path, _as_yaml(best, path.stem))
        return path
    beside = path.with_name(f"{path.stem}.{best.fingerprint[:8]}{path.suffix}")
    _replace(beside, _as_yaml(best, beside.stem))
    raise StudyError(
        f"{path} holds the result of another study and was left as it is ({'; '.join(differences)}). "
        f"The new result is in {beside}: use it with +best={beside.stem}, or move {path.name} away and run "
        "again."
    )


def read_best(path: Path) -> BestConfig:
    """What `write_best` wrote. Raises ConfigError naming the file and the key that is wrong."""
    if not path.is_file():
        present = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise ConfigError(f"{path} does not exist; {path.parent} holds {_listed(present)}.")
    node = _load(path)
    if not isinstance(node, dict) or not isinstance(node.get("best"), dict):
        raise ConfigError(f"{path} must hold `recipe`, `model` and `best`, as written at the end of a sweep.")
    told = {**node["best"], "recipe": node.get("recipe"), "model": node.get("model")}
    for name in _SCORES:
        if name in told:
            told[name] = _build(Score, told[name], f"{path}: best.{name}")
    told["verdicts"] = tuple(
        _build(Verdict, verdict, f"{path}: best.verdicts[{index}]")
        for index, verdict in enumerate(told.get("verdicts") or ())
    )
    recipe = told["recipe"]
    if isinstance(recipe, dict) and isinstance(recipe.get("target_modules"), list):
        recipe = {**recipe, "target_modules": tuple(recipe["target_modules"])}
    told["recipe"] = _build(Recipe, recipe, f"{path}: recipe")
    if not isinstance(told["model"], dict):
        raise ConfigError(f"{path}: model must be a mapping, got {told['model']!r}.")
    return _build(BestConfig, told, f"{path}: best")


def register_adapter(
    tracking: Tracking,
    *,
    run_id: str,
    name: str,
    adapter_folder: Path,
    best_yaml: Path | None,
    base: Mapping[str, object],
    metrics: Mapping[str, float],
    alias: Literal["auto", "challenger"],
) -> RegisteredAdapter:
    """A version of the registered model `name` that MLflow can load and serve, linked to the run.

    Alias "auto": champion where the name has none yet, else challenger. The same adapter of the
    same run is registered once. base: what `load_with_adapter` rebuilds the base model from.
    Raises ModelError if the folder is no adapter or holds pickles.
    """
    key = f"{run_id}/{_checked_sha256(adapter_folder)}"
    client = connect(tracking.uri)
    with _told(tracking.uri), _default_store(tracking.uri):
        known = _version_with(client, name, key)
        if known is None:
            model_id = _log_model(client, run_id, name, adapter_folder, best_yaml, base)
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


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Only double quotes escape; in single ones PyYAML loses some line breaks.
    style = "'" if _NUMBER_LIKE.match(text) else None
    style = style if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text.replace("${", "\\${"), style=style)


_Dumper.add_representer(str, _text)
# NumPy's float64 is a float, but not by its exact type.
_Dumper.add_multi_representer(float, lambda dumper, value: dumper.represent_float(float(value)))


def _as_yaml(best: BestConfig, name: str) -> str:
    told = asdict(best)
    nodes = {"recipe": told.pop("recipe"), "model": told.pop("model"), "best": told}
    body = yaml.dump(nodes, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"# @package _global_\n{_provenance(best, name)}\n{body}"


def _provenance(best: BestConfig, name: str) -> str:
    failed = [verdict for verdict in best.verdicts if not verdict.passed]
    lines = [
        f"Best recipe of study {best.study}: trial {best.trial}, seed {best.seed}, {best.horizon} examples.",
        "",
        f"confirm     this recipe   {_shown(best.confirm)}",
        f"            the defaults  {_shown(best.default_confirm)}",
        f"validation  this recipe   {_shown(best.validation)}",
        f"checks      {len(best.verdicts) - len(failed)} of {len(best.verdicts)} passed",
        *(f"            {verdict.check}: {verdict.message}" for verdict in failed),
        "",
        f"Train with it:  python -m sweep.train +experiment={best.experiment} +best={name}",
    ]
    return "".join(f"# {_on_one_line(line)}".rstrip() + "\n" for line in lines)


def _on_one_line(text: str) -> str:
    """A comment: a line break in a message must not end it, and YAML refuses control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _shown(score: Score) -> str:
    return f"{score.value:.4f} ± {score.standard_error:.4f} (standard error, {score.examples} examples)"


def _differences(best: BestConfig, path: Path) -> list[str]:
    try:
        node = _load(path)
    except ConfigError:
        node = None
    there = node.get("best") if isinstance(node, dict) else None
    if not isinstance(there, dict):
        return ["it is no result of a sweep that can be read"]
    told = asdict(best)
    if all(there.get(name) == told[name] for name in ("study", "fingerprint")):
        return []
    names = ("study", "experiment", "fingerprint", "data_fingerprint", "seed", "horizon")
    return [
        f"{name}: {there.get(name)} there, {told[name]} now"
        for name in names
        if there.get(name) != told[name]
    ]


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _load(path: Path) -> Any:
    try:
        return _plain(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {first}") from error


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {_plain(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node.replace("\\${", "${") if isinstance(node, str) else node


def _build(kind: type[_T], node: object, where: str) -> _T:
    """The dataclass from a mapping that names each of its fields, and nothing else."""
    if not isinstance(node, dict):
        raise ConfigError(f"{where} must be a mapping, got {node!r}.")
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if missing := sorted(names - node.keys()):
        raise ConfigError(
            f"{where} lacks {', '.join(missing)}. Add it, or take the file as the sweep wrote it."
        )
    if unknown := sorted(node.keys() - names, key=str):
        raise ConfigError(f"{where} has unknown keys {', '.join(map(str, unknown))}; remove them.")
    hints = get_type_hints(kind)
    return kind(**{name: _number(hints[name], node[name], f"{where}.{name}") for name in node})


def _number(hint: object, value: Any, where: str) -> Any:
    """The value; as a float where one is due. YAML 1.1 reads a hand-written 1e-4 as text."""
    if hint is float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{where} must be a number, got {value!r}.") from None
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where} must be a whole number, got {value!r}.")
    if hint is bool and not isinstance(value, bool):
        raise ConfigError(f"{where} must be true or false, got {value!r}.")
    return value


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


def _log_model(
    client: MlflowClient,
    run_id: str,
    name: str,
    adapter_folder: Path,
    best_yaml: Path | None,
    base: Mapping[str, object],
) -> str:
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
            [ParamSpec("max_new_tokens", "long", 256), ParamSpec("system_prompt", "string", "")]
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
        artifacts = {"adapter": str(adapter_folder.resolve())}
        if best_yaml is not None:
            artifacts["best"] = str(shutil.copy(best_yaml, f"{folder}/best.yaml"))
        target = Path(folder, "model")
        mlflow.pyfunc.save_model(
            str(target),
            mlflow_model=model,
            python_model=str(Path(__file__).with_name("adapter_model.py")),
            artifacts=artifacts,
            model_config=dict(base),
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
        client.log_metric(run_id, key, value, model_id=model_id)


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
        raise ConfigError(f"{uri}: no model {name!r} is registered. There is {_listed(names)}.") from error
    versions = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    aliases = [f"@{alias} ({version})" for alias, version in sorted(found[0].aliases.items())]
    known = _listed([*map(str, versions), *aliases])
    raise ConfigError(f"{uri}: model {name!r} has no such version. There is {known}.") from error


def _listed(names: list[str]) -> str:
    return textwrap.shorten(", ".join(names), 500, placeholder=" ...") or "nothing yet"


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What MLflow refuses, as ConfigError."""
    import mlflow

    try:
        yield
    except mlflow.MlflowException as error:
        raise ConfigError(f"tracking.uri={redact(uri)}: {redact(str(error))}") from error


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
