"""What a sweep's own run says about the sweep: parameters, data and configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sweep.redaction import redact


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


def dataset_of(record: SweepRecord) -> dict[str, str]:
    """The data as MLflow's dataset has it, and what it is used for."""
    remote = record.data_source.startswith(("http://", "https://"))
    return {
        "name": record.data_name,
        "digest": record.data_fingerprint[:36],
        "source_type": "http" if remote else "local",
        "source": json.dumps({"url" if remote else "uri": redact(record.data_source)}),
        "profile": json.dumps(dict(record.rows_by_split)),
        "context": ", ".join(record.rows_by_split),
    }


def new_params(values: Mapping[str, object], known: Collection[str]) -> dict[str, str]:
    """What is not shown yet: MLflow refuses to change a parameter, such as a resumed sweep's budget."""
    shown = {
        key: redact(", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value))
        for key, value in values.items()
    }
    return {key: value for key, value in shown.items() if key not in known}
