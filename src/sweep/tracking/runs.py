"""A sweep's runs in MLflow: found again, created where they are missing, written without doubling a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from sweep.errors import ConfigError
from sweep.tracking.points import CURVE_MARK, RUNG_MARK, Point, calls, final_points, now_ms, rung_points
from sweep.tracking.record import SweepRecord, new_params
from sweep.tracking.store import Tracking, connect, redact
from sweep.types import Recipe, Standing

if TYPE_CHECKING:
    from mlflow.entities import Run

REASON_LENGTH = 5000

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
class _Found:
    """The parent run, and its nested runs by trial."""

    parent: Run
    trials: dict[str, _Stored]


class Runs:
    """The parent run of a sweep and its nested runs, as the store has them.

    They are read at the first need and remembered; after any failure call `forget`. No other
    process may write to them. Every method may raise what MLflow raises, and may then be repeated.
    on_create: hears of a parent run that this object created. parent_run_id: as last read.
    """

    parent_run_id: str

    def __init__(self, tracking: Tracking, record: SweepRecord, *, on_create: Callable[[Run], None]) -> None:
        self.client = connect(tracking.uri)
        self._tracking = tracking
        self._record = record
        self._on_create = on_create
        self._found: _Found | None = None

    def forget(self) -> None:
        """Read the store again before the next write: a request whose answer got lost may have been done."""
        self._found = None

    def parent(self) -> Run:
        """The sweep's own run, as it was when it was read."""
        return self._all().parent

    def write(self, standing: Standing, curve: Sequence[Point]) -> None:
        """Make the trial's run agree with its standing, and add what it lacks of the curve."""
        trial, stored = standing.trial, self._trial(standing)
        steps, rungs = self._lacking(stored, curve), rung_points(standing, after=stored.rung)
        tags = _new_tags(standing, stored.tags, nonfinite=sum(point.nonfinite for point in (*steps, *rungs)))
        params = new_params({**asdict(trial.recipe), "seed": trial.seed, "base": trial.base}, stored.params)
        final_loss = final_points(standing) if "sweep.state" in tags else []
        if steps or rungs or tags or params:
            self._log(stored.run_id, [*steps, *rungs, *final_loss], params, tags)
        if steps:
            stored.curve = (stored.curve or set()).union(point.step for point in steps)
        stored.rung = rungs[-1].step if rungs else stored.rung
        stored.params |= params.keys()
        stored.tags |= tags
        self._show_status(standing, stored)

    def write_beside(self, name: str, description: str, metrics: Mapping[str, float]) -> None:
        """Make a finished nested run of this name show these metrics; it is found again by its name."""
        from mlflow.entities import Metric, RunTag

        stored = self._nested(name, name, started=now_ms())
        shown = self.client.get_run(stored.run_id).data.metrics
        new = {key: value for key, value in metrics.items() if shown.get(key) != value}
        self.client.log_batch(
            stored.run_id,
            metrics=[Metric(key, value, now_ms(), 0) for key, value in new.items()],
            tags=[RunTag("mlflow.note.content", description)],
        )
        if stored.status != "FINISHED":
            self.client.set_terminated(stored.run_id, "FINISHED")
            stored.status = "FINISHED"

    def close(self, status: RunStatus) -> None:
        """Close the parent with `status`; a nested run that is still running is KILLED."""
        found = self._all()
        for stored in found.trials.values():
            if stored.status == "RUNNING":
                self.client.set_terminated(stored.run_id, "KILLED")
                stored.status = "KILLED"
        self.client.set_terminated(found.parent.info.run_id, status)

    def _lacking(self, stored: _Stored, curve: Sequence[Point]) -> list[Point]:
        if curve and stored.curve is None:
            history = self.client.get_metric_history(stored.run_id, CURVE_MARK)
            stored.curve = {point.step for point in history}
        known = stored.curve or set()
        # Of a step taken twice, the first.
        return sorted({point.step: point for point in reversed(curve) if point.step not in known}.values())

    def _log(
        self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        *first, final = calls(points)
        for metrics in first:
            self.client.log_batch(run_id, metrics=metrics)
        # The tags close the trial's batch, so a stored state vouches for the points before it.
        self.client.log_batch(
            run_id,
            metrics=final,
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in tags.items()],
        )

    def _show_status(self, standing: Standing, stored: _Stored) -> None:
        status = _STATUS[standing.state]
        if status == stored.status:
            return
        if status in ("FINISHED", "FAILED"):
            ended = standing.reports[-1].ended_ms if standing.reports else 0
            self.client.set_terminated(stored.run_id, status, end_time=ended or now_ms())
        else:
            self._set_status(stored.run_id, status)
        stored.status = status

    def _set_status(self, run_id: str, status: str) -> None:
        from mlflow.entities import RunStatus as Status

        # `update_run` reads the whole run first, for the end that it then writes again: 3 ms.
        store = self.client._tracking_client.store
        store.update_run_info(run_id, Status.from_string(status), end_time=None, run_name=None)

    def _all(self) -> _Found:
        if self._found is None:
            experiment = self._experiment_id()
            parent = self._find_parent(experiment) or self._create_parent(experiment)
            nested = self._search(experiment, f"tags.`mlflow.parentRunId` = {_quoted(parent.info.run_id)}")
            trials: dict[str, _Stored] = {}
            for run in nested:
                trials.setdefault(run.data.tags.get("sweep.trial", ""), _as_stored(run))
            self.parent_run_id = parent.info.run_id
            self._found = _Found(parent, trials)
        return self._found

    def _experiment_id(self) -> str:
        name = self._tracking.experiment
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return self.client.create_experiment(name)
        if experiment.lifecycle_stage == "deleted":
            raise ConfigError(
                f"tracking.experiment={name} was deleted in MLflow at {redact(self._tracking.uri)}. Choose "
                f"another name, or restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        return experiment.experiment_id

    def _find_parent(self, experiment: str) -> Run | None:
        same = self._search(experiment, f"tags.`sweep.fingerprint` = {_quoted(self._record.fingerprint)}")
        # Compared here: the filter grammar can't quote every name.
        return next((run for run in same if run.data.tags.get("sweep.study") == self._record.name), None)

    def _create_parent(self, experiment: str) -> Run:
        tags = {"sweep.study": self._record.name, "sweep.fingerprint": self._record.fingerprint}
        parent = self.client.create_run(experiment, tags=tags | self._source, run_name=self._record.name)
        self._on_create(parent)
        return parent

    def _trial(self, standing: Standing) -> _Stored:
        first = standing.reports[0] if standing.reports else None
        started = first.ended_ms - round(first.seconds * 1000) if first and first.ended_ms else now_ms()
        return self._nested(standing.trial.id, _run_name(standing), started=started)

    def _nested(self, name: str, title: str, *, started: int) -> _Stored:
        """The nested run of this name, begun if there is none. title: what a person sees."""
        found = self._all()
        if name not in found.trials:
            run = self.client.create_run(
                found.parent.info.experiment_id,
                start_time=started,
                tags={
                    "mlflow.parentRunId": found.parent.info.run_id,
                    "sweep.trial": name,
                    **self._source,
                },
                run_name=title,
            )
            found.trials[name] = _Stored(run_id=run.info.run_id, status=run.info.status)
        return found.trials[name]

    @property
    def _source(self) -> dict[str, str]:
        commit = self._record.git_commit
        return {**_SOURCE, **({"mlflow.source.git.commit": commit} if commit else {})}

    def _search(self, experiment: str, condition: str) -> list[Run]:
        """Active runs, oldest first: of a run created twice, every reader takes the same one."""
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs(
                [experiment],
                condition,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token or None,
            )
            runs.extend(page)
            token = page.token or None
        return runs


def _new_tags(standing: Standing, stored: Mapping[str, str], *, nonfinite: int) -> dict[str, str]:
    """What the run's tags must change to. nonfinite: values left out since the last write."""
    reason = redact(standing.reason or "")[:REASON_LENGTH]
    tags = {"sweep.state": standing.state, "sweep.reason": reason}
    if total := nonfinite + int(stored.get("sweep.nonfinite_points", 0)):
        tags["sweep.nonfinite_points"] = str(total)
    return {key: value for key, value in tags.items() if stored.get(key, "") != value}


def _as_stored(run: Run) -> _Stored:
    metrics = run.data.metrics
    return _Stored(
        run_id=run.info.run_id,
        status=run.info.status,
        params=frozenset(run.data.params),
        tags=dict(run.data.tags),
        rung=int(metrics.get(RUNG_MARK, -1)),
        curve=None if CURVE_MARK in metrics else set(),
    )


def _run_name(standing: Standing) -> str:
    """Such as `trial 12 · lr 3e-4 · r16 · b8`."""
    trial, recipe = standing.trial, standing.trial.recipe
    name = f"trial {trial.id}" if trial.id[:1].isdigit() else trial.id
    return f"{name} · lr {_short(recipe)} · r{recipe.lora_rank} · b{recipe.batch_size}"


def _short(recipe: Recipe) -> str:
    mantissa, exponent = f"{recipe.learning_rate:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _quoted(value: str) -> str:
    """A string in MLflow's filter grammar, which knows no escapes."""
    mark = '"' if "'" in value else "'"
    return f"{mark}{value}{mark}"
