"""The manifest is one that Kubernetes would take.

rayjob.json.xz is the schema of KubeRay's RayJob, version v1, without its descriptions: made from
helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of KubeRay at feeaf72fa, Apache-2.0.
"""

from __future__ import annotations

import copy
import json
import lzma
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from sweep.config import compose

HERE = Path(__file__).parent
MANIFEST = yaml.safe_load((HERE.parents[1] / "docs/clusters/kuberay.yaml").read_text())


def strict(schema: Any) -> Any:
    """The schema as an API server reads it: a key that it does not know is refused."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = schema.get("x-kubernetes-preserve-unknown-fields", False)
    return closed


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    rayjob = json.loads(lzma.decompress((HERE / "rayjob.json.xz").read_bytes()))
    # Kubernetes checks it by a schema of its own.
    rayjob["properties"]["metadata"] = {}
    return Draft7Validator({**strict(rayjob), "required": ["apiVersion", "kind", "metadata", "spec"]})


def pods() -> Iterator[dict[str, Any]]:
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_the_manifest_is_a_rayjob(schema: Draft7Validator) -> None:
    assert [error.message for error in schema.iter_errors(MANIFEST)] == []
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "entrypiont"], "python"),
        (["spec", "backoffLimit"], "three"),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "password"),
        (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers"], {}),
    ],
)
def test_a_slip_in_it_would_be_found(schema: Draft7Validator, path: list[str], value: object) -> None:
    broken = copy.deepcopy(MANIFEST)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not schema.is_valid(broken)


def test_all_pods_see_the_same_folder() -> None:
    for pod in pods():
        (container,) = pod["containers"]
        (volume,) = pod["volumes"]
        (mount,) = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert volume["persistentVolumeClaim"] == {"claimName": "sweep"}
        assert mount["mountPath"] == "/work"


def test_the_cluster_is_of_the_ray_that_is_installed() -> None:
    assert MANIFEST["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_its_command_is_one_that_sweep_takes() -> None:
    _, _, script = shlex.split(MANIFEST["spec"]["entrypoint"])
    command = script.partition("exec python -m sweep ")[2]
    assert compose(shlex.split(command)).experiment == "support_bot"
