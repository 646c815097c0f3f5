"""Optuna's pruners are asked where a trial has reached a rung, and no more once it was let go on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner
from optuna.storages import InMemoryStorage

from sweep.search.scheduler import Pruned
from sweep.search.study import Study
from sweep.types import Progress, Report
from tests.search.dying import survived
from tests.studies import handed_out, open_study, reached

Run = Callable[..., Study]


class Median(MedianPruner):
    """Optuna's, which notes when it was asked; `strict`, it lets nobody go on."""

    def __init__(self) -> None:
        super().__init__(n_startup_trials=3)
        self.asked: list[tuple[int, int | None]] = []
        self.strict = False

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.asked.append((trial.number, trial.last_step))
        return self.strict or super().prune(study, trial)


def pruned(pruner: BasePruner, storage: InMemoryStorage | None = None) -> Study:
    return open_study(storage, scheduler=Pruned(eta=3, rungs=3, pruner=pruner), trials=16)


def outline(study: Study) -> list[tuple[Any, ...]]:
    return [(one.trial.recipe, one.state, one.values) for one in study.standings]


def test_interruptions_ask_about_nobody_who_was_let_go_on(run: Run) -> None:
    alone, often = Median(), Median()
    undisturbed = run(pruned(alone))
    assert any(one.state == "pruned" for one in undisturbed.standings)
    assert len(set(alone.asked)) == len(alone.asked) > 16

    storage, steps = InMemoryStorage(), 0
    study = pruned(often, storage)

    class Interrupt:
        """At each tenth step."""

        def log(self, event: Progress | Report) -> None:
            nonlocal steps
            steps += isinstance(event, Progress)
            if steps % 10 == 9:
                study.interrupt()

    while any(not one.ended for one in study.standings) or len(study.standings) < 16:
        study = pruned(often, storage)
        run(study, Interrupt())
    assert steps > 200
    assert outline(study) == outline(undisturbed)
    # Interrupted before it was handed out again, it is asked about once more, of the same history.
    assert [one for one, _ in groupby(often.asked)] == alone.asked


def test_who_was_let_go_on_is_not_judged_by_what_others_reach_meanwhile() -> None:
    pruner, storage = Median(), InMemoryStorage()
    study = pruned(pruner, storage)
    defaults = handed_out(study)
    study.record(reached(defaults, 2.0))
    held = handed_out(study)
    other = handed_out(study)
    study.record(reached(other, 2.0))
    on = handed_out(study)
    assert on.id == f"{other.trial.id}@96"
    pruner.strict = True
    study.interrupt()
    study.record(reached(on, 2.0, state="stopped", examples_seen=64, validation_loss=None))
    study.record(reached(held, 2.0, state="stopped", examples_seen=8, validation_loss=None))
    assert study.standing(on.trial.id).state == "paused"
    again = pruned(pruner, storage)
    waiting = {handed_out(again).id for _ in range(3)}
    assert on.id in waiting
    assert pruner.asked == [(1, 32)]


@pytest.mark.parametrize("first_writes", range(5, 130, 17))
def test_a_driver_killed_before_it_asked_asks_at_its_next_start(run: Run, first_writes: int) -> None:
    undisturbed = outline(run(pruned(Median())))
    study, _ = survived(lambda storage: run(pruned(Median(), storage)), first=first_writes)
    assert outline(study) == undisturbed
