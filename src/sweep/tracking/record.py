"""What a sweep's own run says about the sweep: parameters, data and configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.tracking.store import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARAMS_PER_CALL = 100


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What the parent run says about its sweep. `name` and `fingerprint` find the run again.

    params: flat. composed_config: YAML. data_source: a path, a URL or a hub id.
    """

    name: str
    fingerprint: str
    params: Mapping[str, object]
    composed_config: str
    git_commit: str | None
    data_name: str
    data_source: str
    data_fingerprint: str
    rows_by_split: Mapping[str, int]


def describe(client: MlflowClient, parent: Run, record: SweepRecord) -> None:
    """Write the record on the parent run; later ones add parameters that are new and replace the config."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    run_id = parent.info.run_id
    params = [Param(*item) for item in new_params(record.params, parent.data.params.keys()).items()]
    for start in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
    remote = record.data_source.startswith(("http://", "https://"))
    dataset = Dataset(
        name=record.data_name,
        digest=record.data_fingerprint[:36],
        source_type="http" if remote else "local",
        source=json.dumps({"url" if remote else "uri": redact(record.data_source)}),
        profile=json.dumps(dict(record.rows_by_split)),
    )
    context = InputTag("mlflow.data.context", ", ".join(record.rows_by_split))
    client.log_inputs(run_id, [DatasetInput(dataset, [context])])
    client.log_text(run_id, redact(record.composed_config), "config.yaml")


def new_params(values: Mapping[str, object], stored: Collection[str]) -> dict[str, str]:
    """What is not stored yet: MLflow refuses to change a parameter, such as a resumed sweep's budget."""
    shown = {
        key: redact(", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value))
        for key, value in values.items()
    }
    return {key: value for key, value in shown.items() if key not in stored}
