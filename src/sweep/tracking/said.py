"""What the journal says of each run, and what an entry must add so that it says what is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sweep.redaction import redact
from sweep.tracking.journal import Begun, Entry, Status
from sweep.tracking.points import (
    CURVE_MARK,
    RUNG_MARK,
    Point,
    curve_point,
    final_points,
    finite,
    now_ms,
    rung_points,
)
from sweep.tracking.record import new_params
from sweep.types import Progress, Recipe, Standing

if TYPE_CHECKING:
    from mlflow.entities import Run

REASON_LENGTH = 5000

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
_ENDED = ("FINISHED", "FAILED")


@dataclass
class Said:
    """One run, as the entries so far make it. metrics: step and value of each at its last step."""

    status: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, tuple[int, float]] = field(default_factory=dict)
    dataset: Mapping[str, str] | None = None

    def take(self, entry: Entry) -> None:
        """Become what the run is after this entry."""
        found: Mapping[str, Any] = entry.found or {}
        self.params |= found.get("params", {}) | entry.params
        self.tags |= found.get("tags", {}) | entry.tags
        self.metrics |= {key: (step, value) for key, (step, value) in found.get("metrics", {}).items()}
        for point in entry.points:
            self.metrics |= {
                key: (point.step, value)
                for key, value in point.values.items()
                if self.step_of(key) <= point.step
            }
        self.dataset = entry.dataset or self.dataset
        if entry.begun:
            self.status = "RUNNING"
        if entry.status:
            self.status = entry.status.name

    def step_of(self, metric: str) -> int:
        """Its last step, -1 before the first."""
        return self.metrics[metric][0] if metric in self.metrics else -1


def of_standing(standing: Standing, said: Said) -> Entry:
    """What the run lacks of what its trial reached."""
    trial = standing.trial
    rungs = rung_points(standing, after=said.step_of(RUNG_MARK))
    reason = redact(standing.reason or "")[:REASON_LENGTH]
    tags = {"sweep.state": standing.state, "sweep.reason": reason, **_nonfinite(rungs, said)}
    tags = {key: value for key, value in tags.items() if said.tags.get(key, "") != value}
    final = final_points(standing) if "sweep.state" in tags else []
    status = _STATUS[standing.state]
    ended = standing.reports[-1].ended_ms if standing.reports else 0
    return Entry(
        run=trial.id,
        begun=None if said.status else Begun(_title(standing), _begun_ms(standing)),
        points=(*rungs, *final),
        params=new_params({**asdict(trial.recipe), "seed": trial.seed, "base": trial.base}, said.params),
        tags=tags,
        # A run begins as RUNNING.
        status=None
        if status == (said.status or "RUNNING")
        else Status(status, (ended or now_ms()) if status in _ENDED else None),
    )


def of_progress(event: Progress, said: Said) -> Entry:
    """The step, unless it was taken before: of a step taken twice, the first counts."""
    if event.examples_seen <= said.step_of(CURVE_MARK):
        return Entry(run=event.trial)
    point = curve_point(event)
    return Entry(run=event.trial, points=(point,), tags=_nonfinite([point], said))


def of_metrics(run: str, values: Mapping[str, float], *, said: Said) -> Entry:
    """Those that the run does not show yet, or otherwise, as of now."""
    new = {
        key: value for key, value in finite(values).items() if said.metrics.get(key, (0, None))[1] != value
    }
    return Entry(run=run, points=(Point(0, now_ms(), new),) if new else ())


def of_beside(name: str, description: str, values: Mapping[str, float], *, said: Said) -> Entry:
    """A finished run that is no trial's."""
    note = {"mlflow.note.content": redact(description)}
    return replace(
        of_metrics(name, values, said=said),
        begun=None if said.status else Begun(name, now_ms()),
        tags={} if said.tags.items() >= note.items() else note,
        status=None if said.status == "FINISHED" else Status("FINISHED", now_ms()),
    )


def of_found(name: str, run: Run) -> Entry:
    """What the store shows of a run that the journal does not know: another folder's, or a lost one's."""
    return Entry(
        run=name,
        begun=Begun(run.info.run_name, run.info.start_time),
        status=Status(run.info.status, run.info.end_time),
        found={
            "params": dict(run.data.params),
            "tags": dict(run.data.tags),
            "metrics": {metric.key: (metric.step, metric.value) for metric in run.data._metric_objs},
        },
    )


def _nonfinite(points: Sequence[Point], said: Said) -> dict[str, str]:
    """How many values were left out of the run, if these points leave out any."""
    new = sum(point.nonfinite for point in points)
    key = "sweep.nonfinite_points"
    return {key: str(new + int(said.tags.get(key, 0)))} if new else {}


def _begun_ms(standing: Standing) -> int:
    first = standing.reports[0] if standing.reports else None
    return first.ended_ms - round(first.seconds * 1000) if first and first.ended_ms else now_ms()


def _title(standing: Standing) -> str:
    """Such as `trial 12 · lr 3e-4 · r16 · b8`."""
    trial, recipe = standing.trial, standing.trial.recipe
    name = f"trial {trial.id}" if trial.id[:1].isdigit() else trial.id
    return f"{name} · lr {_short(recipe)} · r{recipe.lora_rank} · b{recipe.batch_size}"


def _short(recipe: Recipe) -> str:
    mantissa, exponent = f"{recipe.learning_rate:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
