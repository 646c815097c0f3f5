"""What a configuration judges by: metrics, scorers, baselines, and the objective that may name them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sweep.errors import ConfigError
from sweep.evaluation.metrics import LOSS
from sweep.schema import convert, nearest
from sweep.targets import Target, read_target
from sweep.types import Metric


def read_metrics(node: object, trusted: Sequence[str]) -> Mapping[str, Target]:
    """The metrics by name, which must fit what MLflow takes and what it is shown of a trial anyway."""
    from sweep.tracking.points import TAKEN

    return _named(node, "metric", kind=Metric, taken=TAKEN, trusted=trusted)


def read_scorers(node: object, trusted: Sequence[str]) -> Mapping[str, Target]:
    """The scorers by name, which must be none that scores have anyway."""
    from sweep.evaluation.objective import TAKEN
    from sweep.evaluation.scorers import Scorer

    return _named(node, "scorer", kind=Scorer, taken=TAKEN, trusted=trusted)


def read_objective(node: object, trusted: Sequence[str], strays: Collection[str]) -> Target:
    """The objective, what it names not yet looked up."""
    from sweep.evaluation.objective import Objective

    return read_target(node, "objective", kind=Objective, trusted=trusted, strays=strays)


def read_baselines(node: object, trusted: Sequence[str]) -> Mapping[str, Target]:
    """The simpler ways by name."""
    from sweep.data.baselines import Baseline

    return _named(node, "baseline", kind=Baseline, taken=(), trusted=trusted)


def check_objective(objective: Target, *, metrics: Collection[str], scorers: Collection[str]) -> None:
    """Nothing, or ConfigError: the objective names a metric, a scorer or a file that is not there."""
    given = objective.arguments
    _check_name("rung_metric", given.get("rung_metric", LOSS), [LOSS, *metrics], group="metric")
    for key in ("metric", "proxy", "quality"):
        _check_name(key, given.get(key), list(scorers), group="scorer")
    _check_aims(objective, scorers)
    labels = given.get("labels")
    if labels is not None and not Path(str(labels)).expanduser().is_file():
        raise ConfigError(
            f"objective.labels={labels}: no such file; must hold what people said of replies. Correct it, or "
            "set objective.labels=null."
        )


def _check_aims(objective: Target, scorers: Collection[str]) -> None:
    from sweep.evaluation.pareto import OFFERED, Pareto

    for aim in objective.build().searched if issubclass(objective.cls, Pareto) else ():
        known = [*OFFERED, *scorers]
        if aim.name not in known:
            raise ConfigError(
                f"objective.aims: {aim.name!r} is no aim. Did you mean `{nearest(aim.name, known)[0]}`? It "
                f"must be one of {', '.join(OFFERED)}, or a scorer that is chosen: "
                f"{', '.join(scorers) or 'none'}. Change objective.aims, or choose the scorer's file with "
                "scorer=[...]."
            )


def _check_name(key: str, name: object, known: Sequence[str], *, group: str) -> None:
    if name is None or name in known:
        return
    near = f"Did you mean `{nearest(str(name), known)[0]}`? " if known else ""
    raise ConfigError(
        f"objective.{key}: {name!r} is none of the {group}s that are chosen: {', '.join(known) or 'none'}. "
        f"{near}Change objective.{key}, or choose its file with {group}=[...]."
    )


def _named(
    node: object, group: str, *, kind: type, taken: Collection[str], trusted: Sequence[str]
) -> Mapping[str, Target]:
    """The targets of a group of which several may be chosen, each under a name of its own."""
    named: Mapping[str, object] = convert(Mapping[str, object], node, group)
    for name in map(str, named):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise ConfigError(
                f"{group}.{name}: a {group} stands under its own name: letters, digits, `_` and `-`, a "
                "letter first. Write `mine:` above its `_target_`, and indent that."
            )
        if name in taken:
            whose = "trial" if group == "metric" else "score"
            raise ConfigError(f"{group}.{name}: every {whose} has a {name} already. Choose another name.")
    return {
        str(name): read_target(value, f"{group}.{name}", kind=kind, trusted=trusted)
        for name, value in named.items()
    }
