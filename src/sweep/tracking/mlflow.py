"""The sweep in MLflow: one parent run, one nested run per trial, no point stored twice.

What a trial reached is taken from its `Standing`, never from events, so a replay has nothing to
remember. Only the live curve is buffered.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.tracking.points import Point, curve_point, finite, now_ms
from sweep.tracking.record import SweepRecord, describe
from sweep.tracking.runs import Runs, RunStatus
from sweep.tracking.store import Tracking, bounded, first_line, redact, unreachable
from sweep.types import Progress, Report, Standing

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["SweepRecord", "Tracker", "Tracking"]

FLUSH_SECONDS = 10.0
# A dead server costs each attempt `CALL_SECONDS`, so between attempts the search goes on undisturbed.
REST_SECONDS = 30.0
WARN_SECONDS = 60.0
CALL_SECONDS = 4
UPLOAD_SECONDS = 60

# What a store answers where waiting does not help, such as for a run that someone deleted in the UI.
_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")

_logger = logging.getLogger("sweep.tracking")


@dataclass
class _Buffer:
    """Curve points not yet stored, oldest first. tried_at: monotonic seconds of the last attempt.

    At first of the first point, or each trial's first step would be written by itself.
    """

    points: list[Point] = field(default_factory=list)
    tried_at: float = field(default_factory=time.monotonic)


class Tracker:
    """Writes a sweep into MLflow; an `Observer`. A later tracker of the same record goes on in the same runs.

    Owns the parent run and its nested runs; no other process may write to them. `standing` must
    know every trial whose events arrive, with the event already in it. Opening raises ConfigError
    if the store can't be reached. After that nothing raises for it: what could not be written is
    kept and sent again with a later event, with `sync` and with `finish`. A dead server blocks no
    call for more than 5 s and is tried again after 30 s.
    """

    def __init__(self, tracking: Tracking, record: SweepRecord, standing: Callable[[str], Standing]) -> None:
        from mlflow.exceptions import MlflowException

        self._uri = redact(tracking.uri)
        self._record = record
        self._standing = standing
        self._buffers: dict[str, _Buffer] = {}
        self._owed: dict[str, None] = {}
        self._uploads: dict[str, Callable[[], None]] = {}
        self._rest_until = -math.inf
        self._warned_at = -math.inf
        try:
            with bounded(CALL_SECONDS):
                self._runs = Runs(tracking, record, on_create=self._describe_later)
                parent = self._runs.parent()
                describe(self._runs.client, parent, record)
                if parent.info.status != "RUNNING":
                    self._runs.client.update_run(parent.info.run_id, "RUNNING")
        except (MlflowException, OSError) as error:
            raise ConfigError(unreachable(tracking.uri, error)) from error
        self._uploads.clear()

    @property
    def parent_run_id(self) -> str:
        """Of the sweep's own run."""
        return self._runs.parent_run_id

    def ui_command(self) -> str:
        """What to type to browse the runs; a password in the address is left out."""
        if self._uri.startswith(("http://", "https://")):
            return f"python -m webbrowser {quote(self._uri)}"
        return f"mlflow ui --backend-store-uri {quote(self._uri)}"

    def log(self, event: Progress | Report) -> None:
        """Take the event in; write its trial at a report, and every 10 s between."""
        buffer = self._buffers.setdefault(event.trial, _Buffer())
        if isinstance(event, Progress):
            buffer.points.append(curve_point(event))
        now = time.monotonic()
        if isinstance(event, Report) or now - buffer.tried_at >= FLUSH_SECONDS:
            self._owed[event.trial] = None
            buffer.tried_at = now
        if self._owed and not self._rests:
            self._send(map(self._standing, list(self._owed)))

    def sync(self, standings: Sequence[Standing]) -> None:
        """Make the runs agree with the standings, whatever an earlier process left undone."""
        told = {standing.trial.id: standing for standing in standings}
        rest = [self._standing(trial) for trial in self._buffers if trial not in told]
        if self._send([*told.values(), *rest]):
            self._upload()

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Set metrics of the sweep as a whole; a value that the run already shows adds no point."""

        def write(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import Metric

            shown = client.get_run(run_id).data.metrics
            new = {key: value for key, value in finite(metrics).items() if shown.get(key) != value}
            client.log_batch(run_id, metrics=[Metric(key, value, now_ms(), 0) for key, value in new.items()])

        self._later(f"metrics {sorted(metrics)}", write)

    def log_beside(self, name: str, description: str, metrics: Mapping[str, float]) -> None:
        """Show something that is no trial, such as a baseline, as a finished run beside the trials'."""
        self._later(
            f"run {name}",
            lambda _client, _run_id: self._runs.write_beside(name, description, finite(metrics)),
        )

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Show the frame as `tables/<name>.json`, in place of an earlier one."""

        def write(client: MlflowClient, run_id: str) -> None:
            path = f"tables/{name}.json"
            # MLflow's own log_table appends to what an earlier attempt left.
            client.log_text(run_id, frame.to_json(orient="split", index=False, date_format="iso"), path)
            shown = json.loads(client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
            entry = {"path": path, "type": "table"}
            if entry not in shown:
                client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*shown, entry]))

        self._later(f"table {name}", write)

    def log_figure(self, name: str, figure: Any) -> None:
        """Show the plotly figure as `plots/<name>.html`, which needs no network to be read."""
        whole = {"include_plotlyjs": True}
        self._later(
            f"figure {name}",
            lambda client, run_id: client.log_figure(run_id, figure, f"plots/{name}.html", save_kwargs=whole),
        )

    def log_text(self, name: str, text: str) -> None:
        """Show the text as the artifact `name`, a path with its suffix."""
        self._later(f"text {name}", lambda client, run_id: client.log_text(run_id, text, name))

    def describe(self, markdown: str) -> None:
        """Show the text as the run's description."""

        def write(client: MlflowClient, run_id: str) -> None:
            client.set_tag(run_id, "mlflow.note.content", markdown)

        self._later("description", write)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy the file into the artifact folder; it must stay until `sync` or `finish`."""
        self._later(
            f"file {folder}/{path.name}",
            lambda client, run_id: client.log_artifact(run_id, str(path), folder),
        )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish: an exception failed the sweep, an interruption, which is none, killed it."""
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    def finish(self, status: RunStatus) -> None:
        """Write what is left and close the runs: the parent with `status`, trials by their standing.

        A trial whose job is still out was cut short: its run is KILLED until a later sweep goes on with it.
        """
        self._rest_until = self._warned_at = -math.inf
        self.sync([])
        self._later("status", lambda _client, _run_id: self._runs.close(status))

    def _later(self, name: str, write: Callable[[MlflowClient, str], None]) -> None:
        """Write to the parent run, now if the store answers; a later write of the same name replaces it."""
        self._uploads[name] = lambda: write(self._runs.client, self._runs.parent().info.run_id)
        if not self._rests:
            self._upload()

    def _upload(self) -> None:
        for name, write in list(self._uploads.items()):
            if not self._attempt(write, UPLOAD_SECONDS):
                return
            del self._uploads[name]

    def _send(self, standings: Iterable[Standing]) -> bool:
        """Whether the store answers. What it refuses of one trial waits until that trial is due again."""
        told = list(standings)
        self._owed |= dict.fromkeys(standing.trial.id for standing in told)
        for standing in told:
            if not self._attempt(partial(self._write_trial, standing), CALL_SECONDS) and self._rests:
                return False
            del self._owed[standing.trial.id]
        return True

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rest_until

    def _attempt(self, write: Callable[[], None], seconds: int) -> bool:
        """Whether the write went through: the one place where a failing store is caught."""
        from mlflow.exceptions import MlflowException

        try:
            with bounded(seconds):
                write()
        except (MlflowException, ConfigError, OSError) as error:
            self._runs.forget()
            now = time.monotonic()
            if getattr(error, "error_code", None) not in _REFUSALS:
                self._rest_until = now + REST_SECONDS
            if now - self._warned_at >= WARN_SECONDS:
                self._warned_at = now
                points = sum(len(buffer.points) for buffer in self._buffers.values())
                _logger.warning(
                    "MLflow at %s could not be written: %s. The search goes on; %d steps of %d trials and %d "
                    "artifacts wait to be sent again.",
                    self._uri,
                    first_line(error),
                    points,
                    len(self._owed),
                    len(self._uploads),
                )
            return False
        return True

    def _write_trial(self, standing: Standing) -> None:
        buffer = self._buffers.setdefault(standing.trial.id, _Buffer())
        self._runs.write(standing, buffer.points)
        buffer.points.clear()
        buffer.tried_at = time.monotonic()

    def _describe_later(self, parent: Run) -> None:
        # Deleted under a running sweep, it comes back whole.
        self._uploads["record"] = partial(describe, self._runs.client, parent, self._record)
