"""What a sweep hands over: the best configuration, and the winner's adapter in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.engines.checkpoint import holds_adapter
from sweep.search.states import exported
from sweep.tracking.best import Written, write_best
from sweep.tracking.mlflow import Tracker, Tracking
from sweep.tracking.registry import Adapter, RegisteredAdapter, register_adapter
from sweep.types import BestConfig, Standing

# Below the working directory, where +best looks.
_FOLDER = Path("sweeps/best")


@dataclass(frozen=True, kw_only=True)
class Published:
    """path: of the best configuration. notice: why it is elsewhere than asked, or nothing registered, if so.

    adapter: None where the engine trains none, nothing registers, or the winner is unfit.
    """

    path: Path
    notice: str | None
    adapter: RegisteredAdapter | None


def publish(
    best: BestConfig,
    winner: Standing,
    tracker: Tracker,
    tracking: Tracking,
    *,
    folder: Path,
    system_prompt: str | None,
) -> Published:
    """Write the configuration, log it on the parent run, register the winner's adapter as challenger.

    A winner that fails its guards or a hard limit is not registered. Raises TrainingError where its state is
    broken, which then is removed.
    """
    written = write_best(best, _FOLDER / f"{best.experiment}.yaml")
    tracker.log_file(written.path)
    metrics = _metrics(best)
    tracker.log_metrics({f"best/{name}": value for name, value in metrics.items()})
    for split, score in (("confirm", best.default_confirm), ("test", best.default_test)):
        if score is not None:
            tracker.log_metrics({f"defaults/{split}": score.value})
    if winner.broken:
        return Published(path=written.path, notice=_unfit(written, winner), adapter=None)
    checkpoint = winner.reports[-1].checkpoint
    if not tracking.register or checkpoint is None or not holds_adapter(checkpoint):
        return Published(path=written.path, notice=written.notice, adapter=None)
    adapter = Adapter(
        folder=exported(checkpoint, folder / "best_adapter"),
        base=best.model,
        system_prompt=system_prompt,
        best_yaml=written.path,
    )
    registered = register_adapter(
        tracking,
        adapter,
        run_id=tracker.parent_run_id,
        name=best.experiment,
        metrics=metrics,
        alias="challenger",
    )
    return Published(path=written.path, notice=written.notice, adapter=registered)


def _unfit(written: Written, winner: Standing) -> str:
    unfit = (
        f"Nothing is registered: trial {winner.trial.id.partition('/')[0]} fails {', '.join(winner.broken)}. "
        "Search fewer epochs and lower ranks, or mend the rows."
    )
    return f"{written.notice} {unfit}" if written.notice else unfit


def _metrics(best: BestConfig) -> Mapping[str, float]:
    scores = {"validation_loss": best.validation, "confirm": best.confirm, "test": best.test}
    return {name: score.value for name, score in scores.items() if score is not None}
