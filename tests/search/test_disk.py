"""What trials keep on disk: no more than may be needed, never less, and no more than there is room for."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import NopPruner
from optuna.storages import InMemoryStorage

from sweep.backends.inline import Inline
from sweep.engines import checkpoint
from sweep.engines.synthetic import Synthetic
from sweep.search.disk import Disk
from sweep.search.scheduler import Asha, Full, Pruned, Scheduler, TopK
from sweep.search.study import Study
from sweep.types import Capacity, Done, Job, Progress, Report
from tests.mounts import mounted, resize
from tests.search.dying import Killed, survived
from tests.studies import handed_out, open_study, run_study, synthetic_engine, synthetic_inputs

STRAIGHT_ON = Pruned(eta=3, rungs=3, pruner=NopPruner())
STATE_BYTES = 100_000


def states(folder: Path) -> dict[str, set[int]]:
    """By trial, the examples that each whole state below the folder has seen."""
    found: dict[str, set[int]] = {}
    for sums in (folder / "checkpoints").glob("*/*/checksums.json"):
        checkpoint.verified(sums.parent)
        found.setdefault(sums.parts[-3], set()).add(int(sums.parts[-2]))
    return found


class Watching:
    """Calls `look` after each event of a study."""

    def __init__(self, look: Callable[[Progress | Report], None]) -> None:
        self._look = look

    def log(self, event: Progress | Report) -> None:
        self._look(event)


class Heavy(Synthetic):
    """Its states take as much as a small adapter's."""

    def _save(self, job: Job, examples: int) -> str | None:
        if job.start == job.stop:
            return job.checkpoint
        target = self._inputs.state(job, examples)
        with checkpoint.writing(target) as aside:
            (aside / "state.json").write_text(json.dumps({"examples_seen": examples}))
            (aside / "weights").write_bytes(random.Random(examples).randbytes(STATE_BYTES))
        return target


def heavy_engine(folder: Path) -> Heavy:
    return Heavy(inputs=synthetic_inputs(folder), noise=0.01)


def disk_of(folder: Path, *, most_bytes: float | None = None) -> Disk:
    return Disk(str(folder / "checkpoints"), most_bytes=most_bytes, state_bytes=STATE_BYTES)


# What is kept


def test_a_trial_that_may_go_on_keeps_its_newest_state_and_the_one_before(tmp_path: Path) -> None:
    study = open_study(scheduler=Asha(eta=2, rungs=4), trials=24)

    def look(event: Progress | Report) -> None:
        if not isinstance(event, Report):
            return
        for trial, seen in states(tmp_path).items():
            standing = study.standing(trial)
            reached = sorted(standing.values)
            if standing.state in ("paused", "running"):
                assert seen <= set(reached[-2:])
                assert reached[-1] in seen or not seen

    run_study(study, synthetic_engine(tmp_path), Watching(look))
    assert {trial: seen for trial, seen in states(tmp_path).items() if seen} == {
        one.trial.id: {study.ladder[-1]} for one in study.standings if one.state == "complete"
    }


def test_a_state_that_would_count_stays_until_another_does(tmp_path: Path) -> None:
    class Rising(Synthetic):
        def expected(self, recipe: Any, examples: int, seed: int) -> float:
            return 2.0 + examples / 1000

    scheduler = Pruned(eta=2, rungs=4, pruner=NopPruner())
    study = open_study(scheduler=scheduler, trials=1, train_rows=320)
    kept = []

    def look(event: Progress | Report) -> None:
        if isinstance(event, Report):
            kept.append(states(tmp_path)["0"])

    run_study(study, Rising(inputs=synthetic_inputs(tmp_path), noise=0.0), Watching(look))
    first, second, third, *_ = study.ladder
    assert kept[0] == {first}
    assert kept[1] == {first, second}
    assert kept[2] == {first, second, third}, (
        "the third is the newest, the second the one before, the first best"
    )
    assert states(tmp_path)["0"] == {first}
    assert study.standing("0").reports[-1].examples_seen == first


@pytest.mark.parametrize(
    "scheduler", [Asha(eta=2, rungs=4), Asha(eta=3, rungs=3), TopK(k=3, first_share=0.2)]
)
@pytest.mark.parametrize("seed", range(4))
def test_who_is_told_to_be_out_never_goes_on_and_others_are_few(
    scheduler: Scheduler, seed: int, tmp_path: Path
) -> None:
    study = open_study(scheduler=scheduler, trials=40, seed=seed)
    out: dict[str, int] = {}
    most = 0

    def look(event: Progress | Report) -> None:
        nonlocal most
        if not isinstance(event, Report):
            return
        for trial in scheduler.out(study.standings, study.ladder, trials=40):
            out.setdefault(trial, study.standing(trial).reached)
        between = [seen for trial, seen in states(tmp_path).items() if not study.standing(trial).ended]
        most = max(most, sum(map(len, between)))

    run_study(study, synthetic_engine(tmp_path), Watching(look))
    assert len(out) > 10
    for trial, reached in out.items():
        assert study.standing(trial).state == "pruned"
        assert study.standing(trial).reached == reached
    # Looked at after each eighth of the trials only, and one job is out.
    assert most <= scheduler.waiting(study.ladder, 40) + 40 // 8 + 2


def test_the_worst_of_a_rung_lose_their_states_before_the_search_ends(tmp_path: Path) -> None:
    study = open_study(trials=40)
    reports = 0

    def look(event: Progress | Report) -> None:
        nonlocal reports
        reports += isinstance(event, Report)
        if reports == 40:
            paused = [one.trial.id for one in study.standings if one.state == "paused"]
            assert len([trial for trial in paused if states(tmp_path).get(trial)]) < len(paused)
            raise Killed

    with pytest.raises(Killed):
        run_study(study, synthetic_engine(tmp_path), Watching(look))


@pytest.mark.parametrize("first_writes", range(1, 120, 9))
def test_whenever_a_driver_is_killed_what_it_needs_is_there(
    first_writes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(storage: InMemoryStorage) -> Study:
        study = open_study(storage, trials=16, disk=disk_of(tmp_path))
        return run_study(study, synthetic_engine(tmp_path))

    study, _ = survived(begin, first=first_writes)
    undisturbed = run_study(open_study(trials=16), synthetic_engine(tmp_path / "undisturbed"))
    assert [(one.trial.recipe, one.values, one.state) for one in study.standings] == [
        (one.trial.recipe, one.values, one.state) for one in undisturbed.standings
    ]
    assert "earlier state" not in caplog.text
    assert states(tmp_path) == states(tmp_path / "undisturbed")


def test_a_larger_budget_takes_up_whose_state_is_gone(tmp_path: Path) -> None:
    storage, engine = InMemoryStorage(), synthetic_engine(tmp_path)
    study = open_study(storage, trials=20)

    def kill(event: Progress | Report) -> None:
        if len(study.standings) == 20 and any(one.state == "complete" for one in study.standings[1:]):
            raise Killed

    with pytest.raises(Killed):
        run_study(study, engine, Watching(kill))
    larger = run_study(open_study(storage, trials=80), engine)
    for one in larger.standings:
        for rung, loss in one.values.items():
            assert loss == engine.expected(one.trial.recipe, rung, one.trial.seed)
    assert len(larger.standings) == 80


def test_what_killed_drivers_and_workers_left_goes_at_the_next_start(tmp_path: Path) -> None:
    storage, engine = InMemoryStorage(), synthetic_engine(tmp_path)
    run_study(open_study(storage, trials=3, scheduler=Full()), engine)
    before = states(tmp_path)
    folder = tmp_path / "checkpoints"
    # A state that no report tells of, and states of what the search does not own.
    own = ["1/40", "2/64"]
    others = ["1/seed1/40", "train/abc/40", "7/40"]
    for name in (*own, *others):
        with checkpoint.writing(folder / name) as aside:
            (aside / "state.json").write_text("{}")
    for left in ("1/.40.4711", ".work.4711", "train/abc/.40.12"):
        (folder / left).mkdir()
    checkpoint.clear_leftovers(folder)
    open_study(storage, trials=3, scheduler=Full(), disk=disk_of(tmp_path))
    assert not list(folder.rglob(".*"))
    for name in others:
        checkpoint.verified(folder / name)
    assert {trial: seen for trial, seen in states(tmp_path).items() if trial != "7"} == before


def test_states_of_a_folder_that_was_moved_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    storage, first = InMemoryStorage(), tmp_path / "first"
    run_study(open_study(storage, trials=3, scheduler=Full()), synthetic_engine(first))
    shutil.move(first, tmp_path / "second")
    before = states(tmp_path / "second")
    open_study(storage, trials=3, scheduler=Full(), disk=disk_of(tmp_path / "second"))
    assert states(tmp_path / "second") == before != {}


# A broken state


class Spoiling:
    """Spoils a trial's state as soon as the job that begins with it was handed out."""

    def __init__(self, study: Study, *, job: str, spoil: Callable[[Path], None]) -> None:
        self._study, self._job, self._spoil = study, job, spoil
        self.plan = study.plan

    def next(self, capacity: Capacity) -> Any:
        job = self._study.next(capacity)
        if isinstance(job, Job) and job.id == self._job and job.attempt == 0:
            self._spoil(Path(job.checkpoint or ""))
        return job

    def cancelled(self) -> frozenset[str]:
        return self._study.cancelled()


def cut(folder: Path) -> None:
    (folder / "state.json").write_text("")


def flip(folder: Path) -> None:
    text = (folder / "state.json").read_bytes()
    (folder / "state.json").write_bytes(bytes([text[0] ^ 1]) + text[1:])


@pytest.mark.parametrize("spoil", [cut, flip, shutil.rmtree])
@pytest.mark.parametrize(("job", "goes_on_from"), [("0@96", 0), ("0@288", 32)])
def test_a_state_that_its_worker_finds_broken_costs_the_way_from_the_one_before(
    job: str, goes_on_from: int, spoil: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = open_study(scheduler=STRAIGHT_ON, trials=2)
    began: list[int] = []

    def look(event: Progress | Report) -> None:
        if isinstance(event, Progress) and event.job == job:
            began.append(event.examples_seen - study.standing("0").trial.recipe.batch_size)

    source = Spoiling(study, job=job, spoil=spoil)
    for event in synthetic_engine(tmp_path).run(source):
        look(study.record(event))
    assert began[0] == goes_on_from
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Trial 0 goes on from an earlier state" in caplog.text
    assert "checksums" in caplog.text or "is missing or is not what was written" in caplog.text
    alone = run_study(open_study(scheduler=STRAIGHT_ON, trials=2), synthetic_engine(tmp_path / "alone"))
    assert [(one.state, one.values) for one in study.standings] == [
        (one.state, one.values) for one in alone.standings
    ]


def test_where_all_states_are_broken_the_trial_begins_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = open_study(scheduler=STRAIGHT_ON, trials=1)

    def spoil_all(folder: Path) -> None:
        for state in folder.parent.iterdir():
            cut(state)

    for event in synthetic_engine(tmp_path).run(Spoiling(study, job="0@288", spoil=spoil_all)):
        study.record(event)
    assert study.standing("0").state == "complete"
    assert "0 examples" in caplog.text


def test_a_state_that_only_its_worker_finds_broken_fails_the_trial_with_the_reason(tmp_path: Path) -> None:
    study = open_study(scheduler=STRAIGHT_ON, trials=2)
    engine = synthetic_engine(tmp_path)
    source = Inline(make_engine=lambda: engine).run(study)
    while not study.standing("0").values if study.standings else True:
        study.record(next(source))
    # Trial 0 may not fail.
    while "1" not in {one.trial.id for one in study.standings} or not study.standing("1").values:
        study.record(next(source))
    job = handed_out(study)
    report = Report(
        job=job.id,
        trial=job.trial.id,
        attempt=job.attempt,
        examples_seen=job.start,
        state="broken",
        error="no file.",
    )
    study.record(report)
    standing = study.standing(job.trial.id)
    assert standing.state == "failed"
    assert "Here it is whole" in (standing.reason or "")


# Room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for 14 states."""
    with mounted(tmp_path / "small", 14 * (STATE_BYTES + 8192)) as folder:
        yield folder


def test_where_room_is_short_no_trial_is_begun_and_those_on_the_way_end(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = InMemoryStorage()
    # Eleven states' worth are somebody else's.
    (small_disk / "other").write_bytes(bytes(11 * STATE_BYTES))
    study = open_study(storage, trials=12, disk=disk_of(small_disk))
    run_study(study, heavy_engine(small_disk))
    assert study.best is not None
    assert 2 <= len(study.standings) < 12
    assert {one.state for one in study.standings} <= {"complete", "paused"}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "no trial is begun" in warning
    assert "budget.disk_gb" in warning
    begun = [one.trial.recipe for one in study.standings]

    (small_disk / "other").unlink()
    again = run_study(open_study(storage, trials=12, disk=disk_of(small_disk)), heavy_engine(small_disk))
    assert len(again.standings) == 12
    assert [one.trial.recipe for one in again.standings][: len(begun)] == begun
    assert {one.state for one in again.standings} <= {"complete", "pruned"}


def test_who_was_paused_where_room_was_short_goes_on_among_all(small_disk: Path) -> None:
    """Halving promotes each that is among the best third of its rung in the end, whoever was begun when."""
    storage = InMemoryStorage()
    (small_disk / "other").write_bytes(bytes(6 * STATE_BYTES))
    plan = {"trials": 24, "seed": 1}
    study = open_study(storage, **plan, disk=disk_of(small_disk))
    run_study(study, heavy_engine(small_disk))
    waiting = [one for one in study.standings if one.state == "paused"]
    assert len(waiting) > 2
    assert study.make_room(5)
    there = [one.trial.id for one in waiting if states(small_disk).get(one.trial.id)]
    assert 0 < len(there) < len(waiting), "the states of some make room for what follows the search"
    (small_disk / "other").unlink()
    resize(small_disk, 60 * (STATE_BYTES + 8192))
    again = run_study(open_study(storage, **plan, disk=disk_of(small_disk)), heavy_engine(small_disk))
    assert len(again.standings) == 24
    left = [
        place
        for rung, above in pairwise(again.ladder)
        for place in again.standings.ranked(rung)[: len(again.standings.ranked(rung)) // 3]
        if above not in again.standings[place.number].values
    ]
    assert left == []
    assert any(len(again.standing(one.trial.id).values) > len(one.values) for one in waiting)
    engine = heavy_engine(small_disk)
    for one in again.standings:
        for rung, loss in one.values.items():
            assert loss == engine.expected(one.trial.recipe, rung, one.trial.seed)


def test_what_is_spare_goes_before_a_trial_is_not_begun(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(9 * STATE_BYTES))
    study = open_study(scheduler=Full(), trials=12, disk=disk_of(small_disk))
    run_study(study, heavy_engine(small_disk))
    assert [one.state for one in study.standings] == ["complete"] * 12
    left = states(small_disk)
    ranked = sorted(study.standings, key=lambda one: one.loss)
    assert 0 < len([one for one in left.values() if one]) < 12
    assert left[ranked[0].trial.id] == {study.ladder[-1]}, "the best one's goes last"


def test_a_full_disk_ends_the_search_and_it_goes_on_once_there_is_room(small_disk: Path) -> None:
    storage = InMemoryStorage()
    (small_disk / "other").write_bytes(bytes(int(13.5 * STATE_BYTES)))
    # Nothing is known of the disk, so nothing prevents it.
    study = open_study(storage, trials=4)
    with pytest.raises(OSError, match="No space left on device"):
        run_study(study, heavy_engine(small_disk))
    resize(small_disk, 40 * STATE_BYTES)
    study = run_study(open_study(storage, trials=4), heavy_engine(small_disk))
    assert [one.trial.number for one in study.standings] == [0, 1, 2, 3]
    engine = heavy_engine(small_disk)
    for one in study.standings:
        for rung, loss in one.values.items():
            assert loss == engine.expected(one.trial.recipe, rung, one.trial.seed)
    assert not list(small_disk.rglob(".*.[0-9]*"))


def test_a_limit_in_bytes_is_kept(tmp_path: Path) -> None:
    most_bytes = 6 * (STATE_BYTES + 1000)
    study = open_study(trials=12, disk=disk_of(tmp_path, most_bytes=most_bytes))

    def look(event: Progress | Report) -> None:
        assert sum(checkpoint.files(str(tmp_path / "checkpoints")).values()) <= most_bytes

    run_study(study, heavy_engine(tmp_path), Watching(look))
    assert study.best is not None


def test_what_a_disk_knows_is_what_lies_there(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, most_bytes=1e9)
    study = run_study(open_study(trials=9, disk=disk), heavy_engine(tmp_path))
    assert isinstance(study.next(Capacity()), Done)
    found = sum(checkpoint.files(str(tmp_path / "checkpoints")).values())
    assert disk.used_bytes == found == disk_of(tmp_path).used_bytes
    assert disk.left_bytes == 1e9 - found


def test_only_what_is_gone_counts_as_freed(tmp_path: Path) -> None:
    place = str(tmp_path / "checkpoints")
    for state in ("1/40", "1/80"):
        with checkpoint.writing(f"{place}/{state}") as aside:
            (aside / "weights").write_bytes(bytes(STATE_BYTES))
    sums = Path(place, "1/80/checksums.json")
    # By which a state is known: what lacks it is not removed.
    known = sums.read_bytes()
    sums.unlink()
    disk = disk_of(tmp_path, most_bytes=1e6)
    disk.drop("1")
    assert disk.used_bytes == sum(checkpoint.files(place).values()) == STATE_BYTES
    sums.write_bytes(known)
    disk.drop("1")
    assert disk.used_bytes == sum(checkpoint.files(place).values()) == 0
