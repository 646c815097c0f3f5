"""The sweep in MLflow: one parent run, one nested run per trial, no point stored twice.

What a trial reached is taken from its `Standing`, never from events, so a replay has nothing to
remember. Only the live curve is buffered. After any failure the store is read again before the
next write: a request whose answer got lost may have been carried out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sweep.errors import ConfigError
from sweep.types import Progress, Recipe, Report, Standing

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

FLUSH_SECONDS = 10.0
# A dead server costs each attempt `CALL_SECONDS`, so between attempts the search goes on undisturbed.
REST_SECONDS = 30.0
WARN_SECONDS = 60.0
CALL_SECONDS = 4
UPLOAD_SECONDS = 60
# A request holds 1,000 entities at most: metrics, and the few tags and parameters of a trial.
METRICS_PER_CALL = 900
PARAMS_PER_CALL = 100
REASON_LENGTH = 5000

# The scheduler sets the rate, so it is finite where losses are not: its points tell which steps are stored.
_CURVE_MARK = "learning_rate"
_RUNG_MARK = "examples_seen"

# What a store answers where waiting does not help, such as for a run that someone deleted in the UI.
_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
# The UI shows SCHEDULED with the clock of a running trial and the word "Scheduled": it waits for its turn.
_STATUS = {
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "infeasible": "FAILED",
    "failed": "FAILED",
}
_SOURCE = {"mlflow.source.name": "python -m sweep", "mlflow.source.type": "LOCAL"}

_logger = logging.getLogger("sweep.tracking")


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """The `tracking` node. uri: of the MLflow store. register: whether production training does so."""

    uri: str
    experiment: str
    register: bool


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


class _Point(NamedTuple):
    """The finite metrics of one step, stored together or not at all. nonfinite: how many were left out."""

    step: int
    metrics: tuple[Metric, ...]
    nonfinite: int


@dataclass
class _Stored:
    """What the store holds of one trial. curve: steps, None until read. rung: examples seen at the last."""

    run_id: str
    status: str
    params: frozenset[str] = frozenset()
    tags: dict[str, str] = field(default_factory=dict)
    rung: int = -1
    curve: set[int] | None = field(default_factory=set)


@dataclass
class _Store:
    """What the store holds of one sweep: the parent run, and its nested runs by trial."""

    parent: Run
    trials: dict[str, _Stored]


@dataclass
class _Buffer:
    """Curve points not yet stored, oldest first. tried_at: monotonic seconds of the last attempt."""

    points: list[_Point] = field(default_factory=list)
    tried_at: float = -math.inf


def connect(uri: str) -> MlflowClient:
    """A quiet client. Creates the database of an `sqlite:///` address and its folder.

    MLflow sends no telemetry and loads no pickles, unless the environment says otherwise.
    Raises ConfigError if the store can't be opened.
    """
    for name, value in {
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # Prints the traceback of each error that it also raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        _probe(uri)
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:  # SQLAlchemy, drivers and MLflow share no base class.
        raise ConfigError(_unreachable(uri, error)) from error


def _probe(uri: str) -> None:
    """Nothing, if a database answers: MLflow tries one that does not for 100 s before it says so."""
    from sqlalchemy import create_engine, make_url

    if not uri.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return
    url = make_url(uri)
    if url.drivername.startswith("sqlite") and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    engine.connect().close()
    engine.dispose()


def redact(text: str) -> str:
    """The text with user and password of every URL in it replaced by `***`."""
    return re.sub(r"(?<=://)[^/\s@]+(?=@)", "***", text)


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
        self._experiment = tracking.experiment
        self._record = record
        self._standing = standing
        self._buffers: dict[str, _Buffer] = {}
        self._owed: dict[str, None] = {}
        self._uploads: dict[str, Callable[[], None]] = {}
        self._rest_until = -math.inf
        self._warned_at = -math.inf
        try:
            with _bounded(CALL_SECONDS):
                self._client = connect(tracking.uri)
                self._store: _Store | None = None
                parent = self._read_store().parent
                self._describe(parent)
                if parent.info.status != "RUNNING":
                    self._client.update_run(parent.info.run_id, "RUNNING")
        except (MlflowException, OSError) as error:
            raise ConfigError(_unreachable(tracking.uri, error)) from error
        self._uploads.clear()

    @property
    def parent_run_id(self) -> str:
        """Of the sweep's own run."""
        return self._parent_run_id

    def ui_command(self) -> str:
        """What to type to browse the runs; a password in the address is left out."""
        if self._uri.startswith(("http://", "https://")):
            return f"python -m webbrowser {quote(self._uri)}"
        return f"mlflow ui --backend-store-uri {quote(self._uri)}"

    def log(self, event: Progress | Report) -> None:
        """Take the event in; write its trial at a report, and every 10 s between."""
        buffer = self._buffers.setdefault(event.trial, _Buffer())
        if isinstance(event, Progress):
            buffer.points.append(_curve_point(event))
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

        def write() -> None:
            from mlflow.entities import Metric

            parent = self._client.get_run(self._read_parent().info.run_id)
            shown = parent.data.metrics
            new = {key: value for key, value in _finite(metrics).items() if shown.get(key) != value}
            points = [Metric(key, value, _now(), 0) for key, value in new.items()]
            self._client.log_batch(parent.info.run_id, metrics=points)

        self._later(f"metrics {sorted(metrics)}", write)

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Show the frame as `tables/<name>.json`, in place of an earlier one."""

        def write() -> None:
            parent = self._read_parent().info.run_id
            path = f"tables/{name}.json"
            # MLflow's own log_table appends to what an earlier attempt left.
            self._client.log_text(parent, frame.to_json(orient="split", index=False, date_format="iso"), path)
            shown = json.loads(self._client.get_run(parent).data.tags.get("mlflow.loggedArtifacts", "[]"))
            entry = {"path": path, "type": "table"}
            if entry not in shown:
                self._client.set_tag(parent, "mlflow.loggedArtifacts", json.dumps([*shown, entry]))

        self._later(f"table {name}", write)

    def log_figure(self, name: str, figure: Any) -> None:
        """Show the plotly figure as `plots/<name>.html`, which needs no network to be read."""

        def write() -> None:
            whole = {"include_plotlyjs": True}
            self._client.log_figure(
                self._read_parent().info.run_id, figure, f"plots/{name}.html", save_kwargs=whole
            )

        self._later(f"figure {name}", write)

    def log_text(self, name: str, text: str) -> None:
        """Show the text as the artifact `name`, a path with its suffix."""
        self._later(
            f"text {name}", lambda: self._client.log_text(self._read_parent().info.run_id, text, name)
        )

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy the file into the artifact folder; it must stay until `sync` or `finish`."""
        self._later(
            f"file {folder}/{path.name}",
            lambda: self._client.log_artifact(self._read_parent().info.run_id, str(path), folder),
        )

    def finish(self, status: RunStatus) -> None:
        """Write what is left and close the runs: the parent with `status`, trials by their standing.

        A trial whose job is still out was cut short: its run is KILLED until a later sweep goes on with it.
        """

        def close() -> None:
            store = self._read_store() if self._store is None else self._store
            for stored in store.trials.values():
                if stored.status == "RUNNING":
                    self._client.set_terminated(stored.run_id, "KILLED")
                    stored.status = "KILLED"
            self._client.set_terminated(store.parent.info.run_id, status)

        self._rest_until = self._warned_at = -math.inf
        self.sync([])
        self._later("status", close)

    def _later(self, name: str, write: Callable[[], None]) -> None:
        self._uploads[name] = write
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
            with _bounded(seconds):
                write()
        except (MlflowException, OSError) as error:
            self._store = None
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
                    _first_line(error),
                    points,
                    len(self._owed),
                    len(self._uploads),
                )
            return False
        return True

    def _write_trial(self, standing: Standing) -> None:
        from mlflow.entities import Param, RunTag

        trial, last = standing.trial, _last(standing)
        buffer = self._buffers.setdefault(trial.id, _Buffer())
        store = self._read_store() if self._store is None else self._store
        stored = store.trials.get(trial.id)
        if stored is None:
            stored = store.trials[trial.id] = self._create(store, standing)
        if buffer.points and stored.curve is None:
            history = self._client.get_metric_history(stored.run_id, _CURVE_MARK)
            stored.curve = {point.step for point in history}
        curve = stored.curve if stored.curve is not None else set()
        fresh = {point.step: point for point in reversed(buffer.points) if point.step not in curve}
        steps = sorted(fresh.values())
        rungs = _rung_points(standing, after=stored.rung)

        nonfinite = sum(point.nonfinite for point in (*steps, *rungs))
        nonfinite += int(stored.tags.get("sweep.nonfinite_points", 0))
        tags = {"sweep.state": standing.state, "sweep.reason": redact(standing.reason or "")[:REASON_LENGTH]}
        if nonfinite:
            tags["sweep.nonfinite_points"] = str(nonfinite)
        tags = {key: value for key, value in tags.items() if stored.tags.get(key, "") != value}
        params = _params({**asdict(trial.recipe), "seed": trial.seed, "base": trial.base}, stored.params)
        final_loss = _final_points(standing) if "sweep.state" in tags else []
        if steps or rungs or tags or params:
            *first, final = _calls([*steps, *rungs, *final_loss])
            for metrics in first:
                self._client.log_batch(stored.run_id, metrics=metrics)
            # The tags close the trial's batch, so a stored state vouches for the points before it.
            self._client.log_batch(
                stored.run_id,
                metrics=final,
                params=[Param(*item) for item in params.items()],
                tags=[RunTag(*item) for item in tags.items()],
            )
        buffer.points.clear()
        buffer.tried_at = time.monotonic()
        curve.update(fresh)
        stored.rung = last.examples_seen if rungs and last else stored.rung
        stored.params |= params.keys()
        stored.tags |= tags

        status = _STATUS[standing.state]
        if status != stored.status:
            if status in ("FINISHED", "FAILED"):
                ended = (last.ended_ms if last else 0) or _now()
                self._client.set_terminated(stored.run_id, status, end_time=ended)
            else:
                self._client.update_run(stored.run_id, status)
            stored.status = status

    def _create(self, store: _Store, standing: Standing) -> _Stored:
        first = standing.reports[0] if standing.reports else None
        started = first.ended_ms - round(first.seconds * 1000) if first and first.ended_ms else _now()
        tags = {
            "mlflow.parentRunId": store.parent.info.run_id,
            "sweep.trial": standing.trial.id,
            **_SOURCE,
            **self._commit,
        }
        run = self._client.create_run(
            store.parent.info.experiment_id, start_time=started, tags=tags, run_name=_run_name(standing)
        )
        return _Stored(run_id=run.info.run_id, status=run.info.status)

    @property
    def _commit(self) -> dict[str, str]:
        return {"mlflow.source.git.commit": self._record.git_commit} if self._record.git_commit else {}

    def _read_parent(self) -> Run:
        if self._store is None:
            self._store = self._read_store()
        return self._store.parent

    def _read_store(self) -> _Store:
        """The sweep as the store has it; the parent run is created or completed where need be."""
        experiment = self._experiment_id()
        same = f"tags.`sweep.fingerprint` = {_quoted(self._record.fingerprint)}"
        found = self._search(experiment, same)
        parents = [run for run in found if run.data.tags.get("sweep.study") == self._record.name]
        if parents:
            parent = parents[0]
        else:
            tags = {"sweep.study": self._record.name, "sweep.fingerprint": self._record.fingerprint}
            tags |= {**_SOURCE, **self._commit}
            parent = self._client.create_run(experiment, tags=tags, run_name=self._record.name)
            # Deleted under a running sweep, it comes back whole.
            self._uploads["record"] = partial(self._describe, parent)
        nested = self._search(experiment, f"tags.`mlflow.parentRunId` = {_quoted(parent.info.run_id)}")
        trials: dict[str, _Stored] = {}
        for run in nested:
            trials.setdefault(run.data.tags.get("sweep.trial", ""), _as_stored(run))
        self._parent_run_id: str = parent.info.run_id
        self._store = _Store(parent, trials)
        return self._store

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return self._client.create_experiment(self._experiment)
        if experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"tracking.experiment={self._experiment} was deleted in MLflow at {self._uri}. Choose "
                f"another name, or restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        return experiment.experiment_id

    def _search(self, experiment: str, condition: str) -> list[Run]:
        """Active runs, oldest first: of a run created twice, every reader takes the same one."""
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [experiment],
                condition,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token or None,
            )
            runs.extend(page)
            token = page.token or None
        return runs

    def _describe(self, parent: Run) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        run_id, record = parent.info.run_id, self._record
        params = [Param(*item) for item in _params(record.params, parent.data.params.keys()).items()]
        for start in range(0, len(params), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
        remote = record.data_source.startswith(("http://", "https://"))
        dataset = Dataset(
            name=record.data_name,
            digest=record.data_fingerprint[:36],
            source_type="http" if remote else "local",
            source=json.dumps({"url" if remote else "uri": redact(record.data_source)}),
            profile=json.dumps(dict(record.rows_by_split)),
        )
        context = InputTag("mlflow.data.context", ", ".join(record.rows_by_split))
        self._client.log_inputs(run_id, [DatasetInput(dataset, [context])])
        self._client.log_text(run_id, redact(record.composed_config), "config.yaml")


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """MLflow's HTTP calls give up after `seconds`, without retries, unless the environment says otherwise.

    Retries would also repeat `create_run` behind our back, which makes a second run.
    """
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)}
    ours = limits.keys() - os.environ.keys()
    os.environ.update({name: limits[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _curve_point(event: Progress) -> _Point:
    values = {
        "train_loss": event.train_loss,
        "gradient_norm": event.gradient_norm,
        _CURVE_MARK: event.learning_rate,
    }
    return _point(values, event.examples_seen, _now())


def _rung_points(standing: Standing, *, after: int) -> list[_Point]:
    """One point per rung beyond `after`, stamped with the report's own time: a replay is the same point."""
    points = []
    tokens = 0
    for report in standing.reports:
        tokens += report.tokens
        if report.examples_seen <= after:
            continue
        values: dict[str, float | None] = {
            **report.metrics,
            "validation_loss": report.validation_loss,
            "bits_per_byte": report.bits_per_byte,
            "seconds": report.seconds,
            "tokens_per_second": report.tokens / report.seconds if report.seconds else None,
            "peak_mib": report.peak_bytes / 2**20,
            "total_tokens": tokens,
            _RUNG_MARK: report.examples_seen,
        }
        points.append(_point(values, report.examples_seen, report.ended_ms))
    return points


def _final_points(standing: Standing) -> list[_Point]:
    """Only complete trials have it, so sorting by it compares like with like."""
    last = _last(standing)
    if standing.state != "complete" or last is None:
        return []
    return [_point({"final_validation_loss": last.validation_loss}, last.examples_seen, last.ended_ms)]


def _point(values: Mapping[str, float | None], step: int, timestamp_ms: int) -> _Point:
    from mlflow.entities import Metric

    given = {key: float(value) for key, value in values.items() if value is not None}
    finite = _finite(given)
    metrics = tuple(Metric(key, value, timestamp_ms, step) for key, value in finite.items())
    return _Point(step, metrics, len(given) - len(finite))


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """MLflow stores infinity as 1.8e308 and draws it."""
    return {_metric_key(key): float(value) for key, value in values.items() if math.isfinite(value)}


def _metric_key(key: str) -> str:
    """The key with what MLflow refuses in it (`@`, `=`, ...) replaced by `_`."""
    return re.sub(r"[^\w\-. /:]", "_", key, flags=re.ASCII)[:250]


def _calls(points: Sequence[_Point]) -> list[list[Metric]]:
    """The metrics, cut into requests between steps, never within one; at least one request."""
    calls: list[list[Metric]] = [[]]
    for point in points:
        if len(calls[-1]) + len(point.metrics) > METRICS_PER_CALL:
            calls.append([])
        calls[-1].extend(point.metrics)
    return calls


def _params(values: Mapping[str, object], stored: Collection[str]) -> dict[str, str]:
    """What is not stored yet: MLflow refuses to change a parameter, such as a resumed sweep's budget."""
    shown = {
        key: redact(", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value))
        for key, value in values.items()
    }
    return {key: value for key, value in shown.items() if key not in stored}


def _as_stored(run: Run) -> _Stored:
    metrics = run.data.metrics
    return _Stored(
        run_id=run.info.run_id,
        status=run.info.status,
        params=frozenset(run.data.params),
        tags=dict(run.data.tags),
        rung=int(metrics.get(_RUNG_MARK, -1)),
        curve=None if _CURVE_MARK in metrics else set(),
    )


def _run_name(standing: Standing) -> str:
    """Such as `trial 12 · lr 3e-4 · r16 · b8`."""
    trial, recipe = standing.trial, standing.trial.recipe
    name = f"trial {trial.id}" if trial.id[:1].isdigit() else trial.id
    return f"{name} · lr {_short(recipe)} · r{recipe.lora_rank} · b{recipe.batch_size}"


def _short(recipe: Recipe) -> str:
    mantissa, exponent = f"{recipe.learning_rate:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _last(standing: Standing) -> Report | None:
    return standing.reports[-1] if standing.reports else None


def _quoted(value: str) -> str:
    """A string in MLflow's filter grammar, which knows no escapes."""
    mark = '"' if "'" in value else "'"
    return f"{mark}{value}{mark}"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _first_line(error: Exception) -> str:
    return redact(next(iter(str(error).strip().splitlines()), type(error).__name__))[:300]


def _unreachable(uri: str, error: Exception) -> str:
    return (
        f"tracking.uri={redact(uri)} could not be opened: {_first_line(error)}. It must be a running MLflow "
        "server or a database. Start the server, correct the address, or set "
        "tracking.uri=sqlite:///mlflow.db, which needs no server."
    )
