"""What a study is: what its trials depend on, and what its readers are told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import optuna

from sweep.errors import StudyError
from sweep.search.plan import Plan
from sweep.search.route import Route

_FINGERPRINT = "fingerprint"


def fingerprint_of(plan: Plan, ladder: Sequence[int]) -> dict[str, str]:
    """Everything that the trials' results depend on, part by part."""
    return {**plan.fingerprint, "rungs (examples)": " ".join(map(str, ladder))}


def digest_of(fingerprint: Mapping[str, str]) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


def check_fingerprint(study: optuna.Study, plan: Plan, given: Mapping[str, str]) -> None:
    """Keep it with a study that has no trials yet. Raises StudyError where the stored trials have another."""
    stored = study.user_attrs.get(_FINGERPRINT)
    if stored is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(_FINGERPRINT, given)
        return
    changed = [key for key in sorted({*stored, *given}) if stored.get(key) != given.get(key)]
    if changed:
        lines = [f"  {key}: was {stored.get(key)}, is {given.get(key)}" for key in changed]
        raise StudyError(
            f"A study named {plan.name!r} exists and searched something else:\n"
            + "\n".join(lines)
            + "\nIts trials don't compare with what is asked for now. Restore the values above to go on "
            f"with it, or start a new study beside it with name={plan.name}_2."
        )


def outline_of(plan: Plan, route: Route, *, devices: float, examples: int) -> dict[str, object]:
    """What a reader of the storage can't tell from the trials. examples: expected of all of them."""
    return {
        "seed": plan.seed,
        "base": plan.base,
        "space": plan.space.to_mapping(),
        "trials": plan.trials,
        "devices": devices,
        "ladder": route.ladder,
        "judged_on": [view.rows for view in route.judged],
        "folds": plan.folds,
        "examples": examples,
    }
