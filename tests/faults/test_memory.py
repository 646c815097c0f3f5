"""The kernel kills a worker whose memory has run out, which is no failure of its trial."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.backends.engines import noted, seconds_to_begin_again
from tests.backends.test_deaths import assert_as_undisturbed, counted, searched, undisturbed
from tests.backends.test_pool import pool
from tests.faults.engines import Hungry
from tests.faults.machine import kills, memory_group
from tests.studies import synthetic_inputs


def test_a_worker_killed_for_want_of_memory_costs_no_trial(
    tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    with memory_group("once", 48) as group:
        engine = partial(
            Hungry, inputs=synthetic_inputs(tmp_path), trial="5", times=1, group=group, taken=192 * 2**20
        )
        study, reports = searched(pool(engine, tmp_path))
        assert kills(group) == 1
    tell_fault(
        injected=1, trials=counted(study, reports, tmp_path), seconds=seconds_to_begin_again(tmp_path, "5")
    )
    assert_as_undisturbed(study, reports, tmp_path)


def test_a_trial_that_never_has_memory_enough_is_told_from_one_that_fails(
    tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    with memory_group("ever", 48) as group:
        engine = partial(
            Hungry, inputs=synthetic_inputs(tmp_path), trial="5", times=99, group=group, taken=192 * 2**20
        )
        study, _ = searched(pool(engine, tmp_path))
        assert kills(group) == 3 == len(noted(tmp_path, "deaths"))
    failed = study.standing("5")
    assert failed.state == "failed"
    assert "was killed (SIGKILL), which is often the system's doing where memory runs out" in str(
        failed.reason
    )
    expected = [(s.trial, s.values) for s in undisturbed(tmp_path).standings if s.trial.id != "5"]
    found = [(s.trial, s.values) for s in study.standings if s is not failed]
    lost, doubled = sum(one not in found for one in expected), len(found) - len(expected)
    tell_fault(injected=3, trials=(len(expected), lost, max(0, doubled)))
    assert found == expected
