"""What a sweep hands over, put together from what its stages found."""

from __future__ import annotations

from collections.abc import Iterable

from sweep.assembly import Assembly, git_commit
from sweep.data.audit.finding import Audited
from sweep.search.study import Study
from sweep.stages.confirm import Confirmed
from sweep.types import BestConfig, Score, Standing


def best_config(
    assembly: Assembly,
    study: Study,
    confirmed: Confirmed,
    checked: Audited,
    mlflow_run: str,
) -> BestConfig:
    """What production training reuses of the confirmed winner, and where it came from."""
    confirmation = confirmed.confirmation
    best, first, second = study.standing(confirmation.trial), confirmation.winner, confirmation.defaults
    assert best.trial.number is not None
    stop, horizon = study.route.whole(best)
    return BestConfig(
        recipe=best.trial.recipe,
        model=assembly.model_description,
        experiment=assembly.config.experiment,
        study=study.plan.name,
        trial=best.trial.number,
        horizon=horizon,
        stop=stop,
        unit=study.plan.unit,
        seed=assembly.config.seed,
        data_fingerprint=assembly.data.fingerprint,
        fingerprint=study.fingerprint,
        validation=_validation(best, study.plan.metrics),
        confirm=first.confirm,
        default_confirm=second.confirm if second else None,
        test=first.test,
        default_test=second.test if second else None,
        baselines={one.name: one.confirm for one in confirmation.baselines},
        decision=confirmation.judgement.outcome,
        verdicts=(confirmation.judgement.verdict, *confirmation.verdicts, *checked.verdicts),
        git_commit=git_commit(),
        mlflow_run=mlflow_run,
        overrides=assembly.config.overrides,
        folds=study.plan.folds,
    )


def _validation(standing: Standing, names: Iterable[str]) -> Score:
    """The score at the last rung, with the metrics of these names."""
    metrics = standing.reports[-1].metrics
    return Score(
        value=standing.loss,
        standard_error=metrics["validation_loss_error"],
        examples=int(metrics["validation_rows"]),
        metrics={name: metrics[name] for name in names if name in metrics},
    )
