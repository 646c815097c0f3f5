"""What a sweep may spend, and what it has spent: over all its stages, devices and starts."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from sweep.backends.metered import KEEP_SECONDS, Metered
from sweep.engines.synthetic import Synthetic
from sweep.errors import ConfigError
from sweep.search.allowance import SEARCH_SHARE, Account, Spent, first_reached, seconds_left
from sweep.search.loop import Jobs, run_jobs, search
from sweep.search.scheduler import Full
from sweep.search.stored import read_study
from sweep.search.study import Study
from sweep.types import Capacity, Job, Progress, Report, Source
from tests.backends.engines import Noted
from tests.backends.test_pool import pool
from tests.contracts.engine import job
from tests.search.dying import Killed
from tests.studies import PLAN, budget, open_study, run_study, synthetic_inputs

Run = Callable[..., Study]


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(Synthetic):
    """An engine that takes a second for each example, by that clock, and dies at a time."""

    def __init__(self, folder: Path, clock: Clock, *, die_at: float = math.inf) -> None:
        super().__init__(inputs=synthetic_inputs(folder), noise=0.01)
        self.clock, self.die_at = clock, die_at

    def run(self, source: Source) -> Iterator[Progress | Report]:
        seen: dict[str, int] = {}
        for event in super().run(source):
            if isinstance(event, Progress):
                self.clock.now += max(0, event.examples_seen - seen.get(event.trial, 0))
                seen[event.trial] = event.examples_seen
            if self.clock.now >= self.die_at:
                raise Killed
            # It says a thousandth.
            yield replace(event, seconds=1000 * event.seconds) if isinstance(event, Report) else event


class TestBounds:
    def test_each_is_used_up_at_its_own_rate(self) -> None:
        given = budget(minutes=90.0, gpu_hours=8.0, cost=20.0, price_per_device_hour=2.5)
        spent = Spent(seconds=3600.0, device_seconds=3 * 3600.0)
        assert [(one.key, one.unit, one.used(spent)) for one in given.bounds] == [
            ("minutes", "min", 60.0),
            ("gpu_hours", "GPU h", 3.0),
            ("cost", "EUR", 7.5),
        ]
        left = [one.seconds_left(spent, devices=4) for one in given.bounds]
        assert left == pytest.approx([1800.0, 5 / 4 * 3600, 12.5 / 10 * 3600])

    @pytest.mark.parametrize(
        ("limits", "devices", "first", "hours"),
        [
            ({"minutes": 60.0, "gpu_hours": 2.0}, 1, "minutes", 1.0),
            ({"minutes": 60.0, "gpu_hours": 2.0}, 4, "gpu_hours", 0.5),
            ({"gpu_hours": 8.0, "cost": 10.0, "price_per_device_hour": 5.0}, 2, "cost", 1.0),
            ({"gpu_hours": 8.0, "cost": 80.0, "price_per_device_hour": 5.0}, 2, "gpu_hours", 4.0),
        ],
    )
    def test_the_first_one_reached_ends_the_search(
        self, limits: dict[str, float], devices: int, first: str, hours: float
    ) -> None:
        bounds = budget(**limits).bounds
        found = first_reached(bounds, Spent(), devices=devices)
        assert found is not None
        assert found.key == first
        assert seconds_left(bounds, Spent(), devices=devices) == pytest.approx(SEARCH_SHARE * hours * 3600)
        assert seconds_left(bounds, Spent(), devices=devices, share=1.0) == pytest.approx(hours * 3600)

    def test_without_any_there_is_no_end(self) -> None:
        assert budget().bounds == ()
        assert first_reached((), Spent(1e9, 1e9), devices=8) is None
        assert seconds_left((), Spent(1e9, 1e9), devices=8) == math.inf

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"trials": 0}, r"budget\.trials: must be at least 1; got 0"),
            ({"gpu_hours": 0.0}, r"budget\.gpu_hours: must be above 0, or null for no limit; got 0"),
            ({"cost": -1.0, "price_per_device_hour": 1.0}, r"budget\.cost: must be above 0"),
            ({"cost": 1.0, "price_per_device_hour": 0.0}, r"budget\.price_per_device_hour: must be above 0"),
            ({"cost": 1.0}, r"budget\.cost: 1 EUR can't be counted .*price_per_device_hour is null"),
            ({"price_per_device_hour": 2.5}, r"budget\.price_per_device_hour: 2\.5 limits nothing"),
            ({"currency": " "}, r"budget\.currency: must be a name"),
        ],
    )
    def test_what_limits_nothing_is_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            budget(**given)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 8)), max_size=20))
def test_devices_that_come_and_go_count_for_as_long_as_they_were_held(
    spells: list[tuple[int, int]],
) -> None:
    clock, held = Clock(), [0]
    account = Account(Spent(10.0, 20.0), devices=lambda: held[0], clock=clock)
    for seconds, devices in spells:
        account.spent()
        held[0] = devices
        clock.now += seconds
        account.spent()
    seconds, device_seconds = sum(s for s, _ in spells), sum(s * d for s, d in spells)
    assert account.spent() == Spent(10.0 + seconds, 20.0 + device_seconds)


class TestSearch:
    """A second for an example, 288 of them for a trial."""

    def searched(self, folder: Path, *, storage: InMemoryStorage | None = None, **given: Any) -> Study:
        clock = Clock()
        study = open_study(storage, trials=1000, scheduler=Full(), clock=clock, **given)
        return run_study(study, Timed(folder, clock))

    @pytest.mark.parametrize(
        ("limits", "devices", "hours"),
        [
            ({"minutes": 60.0}, (1,), 1.0),
            ({"minutes": 60.0}, (4,), 1.0),
            ({"gpu_hours": 4.0}, (4,), 1.0),
            ({"cost": 10.0, "price_per_device_hour": 2.5}, (4,), 1.0),
            ({"minutes": 600.0, "gpu_hours": 100.0, "cost": 2.5, "price_per_device_hour": 2.5}, (1,), 1.0),
        ],
    )
    def test_it_ends_where_the_first_budget_says_and_begins_nothing_that_it_can_not_finish(
        self, limits: dict[str, float], devices: tuple[int, ...], hours: float, tmp_path: Path
    ) -> None:
        study = self.searched(tmp_path, bounds=budget(**limits).bounds, devices=devices)
        most = SEARCH_SHARE * hours * 3600
        assert most - 288 <= study.spent.seconds <= most
        assert {one.state for one in study.standings} == {"complete"}
        assert study.spent.device_seconds == pytest.approx(sum(devices) * study.spent.seconds)

    def test_what_other_stages_spent_before_is_no_longer_there_for_the_search(self, tmp_path: Path) -> None:
        clock, bounds = Clock(), budget(gpu_hours=1.0).bounds
        study = open_study(trials=1000, scheduler=Full(), clock=clock, bounds=bounds)
        clock.now += 1800
        run_study(study, Timed(tmp_path, clock))
        most = SEARCH_SHARE * 3600
        assert most - 288 <= study.spent.seconds <= most
        assert study.seconds_spent == study.spent.seconds - 1800
        # What follows is spent too, but is no part of the search.
        before = study.seconds_spent
        clock.now += 500
        study.keep_spent()
        assert study.seconds_spent == before
        assert study.spent.seconds == clock.now

    def test_a_killed_driver_goes_on_with_what_is_left(self, tmp_path: Path) -> None:
        whole = self.searched(tmp_path / "whole", bounds=budget(gpu_hours=2.0).bounds, devices=(2,))
        disk, starts = InMemoryStorage(), 0
        while True:
            starts += 1
            clock = Clock()
            bounds = budget(gpu_hours=2.0).bounds
            study = open_study(disk, trials=1000, scheduler=Full(), clock=clock, bounds=bounds, devices=(2,))
            try:
                run_study(study, Timed(tmp_path / "killed", clock, die_at=700.0))
                break
            except Killed:
                kept = read_study(disk, PLAN.name).spent
                # Of 700 seconds each start loses what came after the last event that was kept.
                assert kept.seconds == pytest.approx(700 * starts, abs=(KEEP_SECONDS + 32) * starts)
                assert kept.device_seconds == pytest.approx(2 * kept.seconds)
        assert 3 < starts < 8
        assert study.spent.seconds == pytest.approx(whole.spent.seconds, abs=288)
        # What was trained since the last checkpoint was paid for, and is trained again.
        assert len(whole.standings) - starts <= len(study.standings) <= len(whole.standings)

    def test_a_larger_budget_goes_on(self, tmp_path: Path) -> None:
        disk = InMemoryStorage()
        first = self.searched(tmp_path, storage=disk, bounds=budget(gpu_hours=1.0).bounds)
        again = self.searched(tmp_path, storage=disk, bounds=budget(gpu_hours=1.0).bounds)
        assert len(again.standings) == len(first.standings)
        dearer = {"cost": 5.0, "price_per_device_hour": 2.5}
        more = self.searched(tmp_path, storage=disk, bounds=budget(**dearer).bounds)
        assert len(more.standings) == pytest.approx(2 * len(first.standings), abs=1)
        assert more.spent.seconds == pytest.approx(2 * SEARCH_SHARE * 3600, abs=288)
        assert more.fingerprint == first.fingerprint

    def test_what_is_left_is_shared_by_the_devices_held_now(self) -> None:
        clock, devices = Clock(), [1]
        study = open_study(clock=clock, bounds=budget(gpu_hours=1.0).bounds, devices=devices)
        clock.now = 880.0
        assert study.seconds_left == 2000.0
        devices[:] = [2, 2]
        assert study.seconds_left == 500.0
        clock.now += 250.0
        assert study.seconds_left == 250.0
        assert study.spent == (1130.0, 880.0 + 4 * 250.0)
        devices.clear()
        clock.now += 1000.0
        assert study.seconds_left == 1000.0, "as if there was one again"
        assert study.spent == (2130.0, 1880.0), "and none is paid for"

    def test_the_time_until_a_device_comes_is_not_paid_for(self, tmp_path: Path) -> None:
        clock, held = Clock(), list[int]()
        study = open_study(trials=1, scheduler=Full(), clock=clock, devices=held)
        search(study, Metered(_Late(tmp_path, clock, held), study.keep_spent), [])
        assert study.spent == (3600.0 + 2.0, 8 * 2.0)

    def test_of_several_workers_each_is_paid_for_busy_or_idle(self, tmp_path: Path) -> None:
        ticks = itertools.count()
        storage = InMemoryStorage()
        with closing(pool(_noted(tmp_path), tmp_path)) as backend:
            study = open_study(
                storage,
                trials=400,
                scheduler=Full(),
                clock=lambda: float(next(ticks)),
                bounds=budget(cost=4.0, price_per_device_hour=3.6).bounds,
                devices=backend.devices,
            )
            search(study, Metered(backend, study.keep_spent), [])
        kept = read_study(storage, PLAN.name).spent
        assert backend.devices == (1, 1)
        assert kept.device_seconds == 2 * kept.seconds
        # 4000 device seconds, of which the search takes its share; a reading of the clock is a second.
        assert kept.device_seconds == pytest.approx(SEARCH_SHARE * 4000, rel=0.1)
        assert 2 <= len(study.standings) < 400
        assert study.best is not None


def _noted(folder: Path) -> Callable[[], Noted]:
    return partial(Noted, inputs=synthetic_inputs(folder))


def test_jobs_outside_the_search_remind_of_what_was_spent(tmp_path: Path) -> None:
    kept: list[float] = []
    backend = Metered(_Here(Synthetic(inputs=synthetic_inputs(tmp_path), noise=0.01)), kept.append)
    run_jobs([job(0, 24)], backend)
    assert kept == [KEEP_SECONDS] * 7 + [0.0], "before and after three steps, a report, then the end"
    backend.close()
    assert len(kept) == 8
    assert list(backend.run(Jobs([]))) == []


def test_an_engine_that_asks_from_a_thread_of_its_own_stores_nothing(tmp_path: Path) -> None:
    """What storing raises would be taken for its trial's failure there."""
    kept: list[int] = []

    class Asking(_Here):
        def run(self, source: Source) -> Iterator[Progress | Report]:
            thread = threading.Thread(target=source.cancelled)
            thread.start()
            thread.join()
            yield from super().run(source)

    engine = Synthetic(inputs=synthetic_inputs(tmp_path), noise=0.01)
    run_jobs([job(0, 24)], Metered(Asking(engine), lambda unless: kept.append(threading.get_ident())))
    assert kept == [threading.get_ident()] * 8


class _Late:
    """Eight devices, an hour after there was a job; a second later it trains, and takes a second."""

    def __init__(self, folder: Path, clock: Clock, held: list[int]) -> None:
        self.engine = Synthetic(inputs=synthetic_inputs(folder), noise=0.01)
        self.clock, self.devices = clock, held

    def run(self, source: Source) -> Iterator[Progress | Report]:
        job = source.next(Capacity())
        assert isinstance(job, Job)
        for _ in range(3600):
            self.clock.now += 1
            source.cancelled()
        self.devices.append(8)
        self.clock.now += 1
        *_, report = self.engine.run(Jobs([job]))
        self.clock.now += 1
        yield report

    def close(self) -> None:
        """Nothing is held."""


class _Here:
    def __init__(self, engine: Synthetic) -> None:
        self.engine = engine

    devices = (1,)

    def run(self, source: Source) -> Iterator[Progress | Report]:
        yield from self.engine.run(source)

    def close(self) -> None:
        self.engine.close()
