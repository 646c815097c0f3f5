"""A sweep's runs in MLflow: found again, created where they are missing, made to show what entries say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from sweep.errors import ConfigError
from sweep.redaction import redact
from sweep.tracking.journal import SWEEP, Begun, Entry, Status
from sweep.tracking.points import now_ms
from sweep.tracking.record import SweepRecord
from sweep.tracking.store import Tracking, client_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
_SOURCE = {"mlflow.source.name": "python -m sweep", "mlflow.source.type": "LOCAL"}

_logger = logging.getLogger("sweep.tracking")


class Runs:
    """The parent run of a sweep and its nested runs, as the store has them.

    No other process may write to them. Every method may raise what MLflow raises, and may then be
    repeated after another `look_up`: a request whose answer got lost may have been done.
    tracking: where they are. ids: of the runs, by trial and `SWEEP`, as last looked up and created since.
    """

    def __init__(self, tracking: Tracking, record: SweepRecord) -> None:
        self.ids: Mapping[str, str] = {}
        self.tracking = tracking
        self._record = record
        self._connected: MlflowClient | None = None
        self._experiment = ""

    def look_up(self) -> dict[str, Run]:
        """The sweep's run, begun if there is none, and those nested in it.

        Raises ConfigError if the experiment was deleted.
        """
        self._experiment = self._experiment_id()
        same = self._search(f"tags.`sweep.fingerprint` = {_quoted(self._record.fingerprint)}")
        # Compared here: the filter grammar can't quote every name.
        parents = [run for run in same if run.data.tags.get("sweep.study") == self._record.name]
        parent = self._only(parents) if parents else self._create_parent()
        found: dict[str, list[Run]] = {}
        for run in self._search(f"tags.`mlflow.parentRunId` = {_quoted(parent.info.run_id)}"):
            found.setdefault(run.data.tags.get("sweep.trial", ""), []).append(run)
        runs = {SWEEP: parent} | {name: self._only(same) for name, same in found.items() if name}
        self.ids = {name: run.info.run_id for name, run in runs.items()}
        return runs

    def send(self, name: str, entries: Sequence[Entry], artifacts: Path) -> None:
        """Make the run show what its entries say, oldest first; begin it if there is none."""
        from mlflow.entities import Metric, Param, RunTag

        run_id = self.ids[name] if name in self.ids else self._create(name, entries)
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in entries:
            params |= entry.params
            tags |= entry.tags
        self._client.log_batch(
            run_id,
            metrics=[
                Metric(key, value, point.at_ms, point.step)
                for entry in entries
                for point in entry.points
                for key, value in point.values.items()
            ],
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in tags.items()],
            # MLFLOW_ENABLE_ASYNC_LOGGING would answer before anything is stored, and lose it in silence.
            synchronous=True,
        )
        for dataset in [entry.dataset for entry in entries if entry.dataset][-1:]:
            self._log_dataset(run_id, dataset)
        for artifact in dict.fromkeys(entry.artifact for entry in entries if entry.artifact):
            self._upload(run_id, artifact, artifacts)
        for status in [entry.status for entry in entries if entry.status][-1:]:
            self._show(run_id, status)

    @property
    def _client(self) -> MlflowClient:
        if self._connected is None:
            self._connected = client_of(self.tracking.uri)
        return self._connected

    def _log_dataset(self, run_id: str, fields: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        shown = {key: value for key, value in fields.items() if key != "context"}
        tag = InputTag("mlflow.data.context", fields["context"])
        self._client.log_inputs(run_id, [DatasetInput(Dataset(**shown), [tag])])

    def _upload(self, run_id: str, artifact: str, artifacts: Path) -> None:
        local = artifacts / artifact
        if not local.is_file():
            _logger.warning("%s is gone, so MLflow does not get it.", local)
            return
        parent = PurePosixPath(artifact).parent
        self._client.log_artifact(run_id, str(local), None if parent == PurePosixPath() else str(parent))

    def _show(self, run_id: str, status: Status) -> None:
        from mlflow.entities import RunStatus as Known

        # `update_run` reads the whole run first, for the end that it then writes again: 3 ms.
        store = self._client._tracking_client.store
        store.update_run_info(run_id, Known.from_string(status.name), end_time=status.ended_ms, run_name=None)

    def _experiment_id(self) -> str:
        name = self.tracking.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name)
        if experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"tracking.experiment={name} was deleted in MLflow at {redact(self.tracking.uri)}. Choose "
                f"another name, or restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        return experiment.experiment_id

    def _create_parent(self) -> Run:
        tags = {"sweep.study": self._record.name, "sweep.fingerprint": self._record.fingerprint}
        return self._client.create_run(self._experiment, tags=tags | self._source, run_name=self._record.name)

    def _create(self, name: str, entries: Sequence[Entry]) -> str:
        begun = next((entry.begun for entry in entries if entry.begun), Begun(name, now_ms()))
        tags = {"mlflow.parentRunId": self.ids[SWEEP], "sweep.trial": name, **self._source}
        run = self._client.create_run(
            self._experiment, start_time=begun.at_ms, tags=tags, run_name=begun.title
        )
        self.ids = {**self.ids, name: run.info.run_id}
        return self.ids[name]

    @property
    def _source(self) -> dict[str, str]:
        commit = self._record.git_commit
        return {**_SOURCE, **({"mlflow.source.git.commit": commit} if commit else {})}

    def _only(self, same: Sequence[Run]) -> Run:
        """The run that counts. One that a late request created beside it, still empty, is deleted."""
        first, *others = sorted(same, key=lambda run: (_empty(run), run.info.start_time, run.info.run_id))
        for run in others:
            if _empty(run):
                self._client.delete_run(run.info.run_id)
        return first

    def _search(self, condition: str) -> list[Run]:
        """Active runs."""
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], condition, max_results=1000, page_token=token or None
            )
            runs.extend(page)
            token = page.token or None
        return runs


def _empty(run: Run) -> bool:
    return not run.data.params and not run.data.metrics


def _quoted(value: str) -> str:
    """A string in MLflow's filter grammar, which knows no escapes."""
    mark = '"' if "'" in value else "'"
    return f"{mark}{value}{mark}"
