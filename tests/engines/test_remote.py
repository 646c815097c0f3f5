"""States below URLs: whole or absent as in folders, and the same for whoever goes on from them."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from optuna.pruners import NopPruner
from safetensors.torch import load_file

from sweep.backends.pool import Pool
from sweep.engines import checkpoint
from sweep.engines.inputs import Inputs
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.engines.synthetic import Synthetic
from sweep.errors import CheckpointError, TrainingError
from sweep.search.disk import Disk
from sweep.search.loop import search
from sweep.search.scheduler import Full, Pruned
from sweep.types import Progress, Report
from tests.contracts.engine import job, reports
from tests.search.dying import survived
from tests.studies import open_study, run_study, synthetic_engine, synthetic_inputs


@pytest.fixture(params=["folder", "memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a state may lie, nothing there yet."""
    kinds = {
        "folder": f"{tmp_path}/states",
        "memory": f"memory://{uuid.uuid4()}",
        "file": f"file://{tmp_path}/states",
    }
    return kinds[request.param]


def write(place: str, content: bytes = b"\x00\x01\x02\x03") -> None:
    with checkpoint.writing(place) as aside:
        (aside / "weights").write_bytes(content)


def spoil(path: str, content: bytes) -> None:
    fsspec.open(path, "wb").open().close()
    with fsspec.open(path, "wb") as file:
        file.write(content)


def test_what_was_written_is_found_whole(place: str) -> None:
    write(f"{place}/96")
    assert checkpoint.whole(f"{place}/96") == f"{place}/96"
    with checkpoint.fetched(f"{place}/96") as folder:
        assert (folder / "weights").read_bytes() == b"\x00\x01\x02\x03"
    assert checkpoint.files(place).keys() == {"96/weights", "96/checksums.json"}


def test_a_later_state_takes_the_earlier_ones_place(place: str) -> None:
    with checkpoint.writing(f"{place}/96") as aside:
        (aside / "old").write_bytes(b"")
    write(f"{place}/96", b"new")
    with checkpoint.fetched(f"{place}/96") as folder:
        assert {path.name for path in folder.iterdir()} == {"weights", "checksums.json"}


@pytest.mark.parametrize("content", [b"\x00\x01\x02\x07", b"", b"\x00"])
def test_what_is_not_as_it_was_written_is_found(place: str, content: bytes) -> None:
    write(f"{place}/32")
    write(f"{place}/96")
    spoil(f"{place}/96/weights", content)
    with (
        pytest.raises(CheckpointError, match="96/weights is missing or is not what was written"),
        checkpoint.fetched(f"{place}/96"),
    ):
        raise AssertionError("it was taken for whole")
    assert checkpoint.latest(place) == (32, f"{place}/32")


def test_what_lacks_files_or_sums_is_no_checkpoint(place: str) -> None:
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoint.whole(f"{place}/96")
    assert checkpoint.latest(place) is None
    for name in ("weights", "checksums.json"):
        write(f"{place}/96")
        system, path = fsspec.core.url_to_fs(f"{place}/96/{name}")
        system.rm_file(path)
        with pytest.raises(CheckpointError):
            checkpoint.whole(f"{place}/96")
        with pytest.raises(CheckpointError), checkpoint.fetched(f"{place}/96"):
            raise AssertionError("it was taken for whole")


def test_sums_lead_nowhere_else(place: str, tmp_path: Path) -> None:
    write(f"{place}/96")
    spoil(f"{place}/96/checksums.json", b'{"../../outside": "0"}')
    with pytest.raises(CheckpointError, match="can't be read"), checkpoint.fetched(f"{place}/96"):
        raise AssertionError("it was taken for whole")


def test_what_is_no_checkpoint_stays_and_is_told_to(place: str) -> None:
    write(f"{place}/96")
    system, path = fsspec.core.url_to_fs(f"{place}/96/checksums.json")
    system.rm_file(path)
    assert not checkpoint.remove(f"{place}/96")
    assert checkpoint.files(place).keys() == {"96/weights"}


def test_only_the_newest_are_kept_and_what_is_removed_is_gone(place: str) -> None:
    for examples in (8, 104, 32):
        write(f"{place}/{examples}")
    checkpoint.keep_newest(place, 2)
    assert {path.partition("/")[0] for path in checkpoint.files(place)} == {"104", "32"}
    assert checkpoint.remove(f"{place}/104")
    assert checkpoint.remove(f"{place}/104"), "there is nothing left of it"
    assert checkpoint.latest(place) == (32, f"{place}/32")


_DIES = """
import os, sys
import fsspec
from fsspec.implementations.local import LocalFileSystem
from optuna.pruners import NopPruner
from sweep.engines import checkpoint

class Dying(LocalFileSystem):
    protocol = "dying"
    def put_file(self, lpath, rpath, **kwargs):
        if rpath.endswith("checksums.json"):
            os._exit(9)
        super().put_file(lpath, rpath, **kwargs)

fsspec.register_implementation("dying", Dying)
with checkpoint.writing(sys.argv[1]) as aside:
    (aside / "weights").write_bytes(b"newer")
"""


@pytest.mark.parametrize("begun_before", [True, False])
def test_killed_between_files_and_sums_it_is_no_checkpoint_and_the_one_before_is_used(
    begun_before: bool, tmp_path: Path
) -> None:
    place = f"file://{tmp_path}"
    write(f"{place}/32")
    if begun_before:
        write(f"{place}/96")
    died = subprocess.run(
        [sys.executable, "-c", _DIES, f"dying://{tmp_path}/96"], capture_output=True, text=True
    )
    assert died.returncode == 9, died.stderr
    assert (tmp_path / "96/weights").read_bytes() == b"newer"
    assert checkpoint.latest(place) == (32, f"{place}/32")
    write(f"{place}/96")
    assert checkpoint.latest(place) == (96, f"{place}/96")


def remove_and_die(place: str, after: int) -> bool:
    """Remove it in a process that dies before the change number `after` to a folder; whether it did."""

    def die(event: str, _: object) -> None:
        nonlocal after
        if event in ("os.remove", "os.rename", "os.rmdir"):
            after -= 1
            if after < 0:
                os._exit(9)

    if not (child := os.fork()):
        sys.addaudithook(die)
        os._exit(0 if checkpoint.remove(place) else 1)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert died in (0, 9)
    return died == 9


@pytest.mark.parametrize("place", ["folder", "file"], indirect=True)
def test_whenever_a_removal_is_killed_what_is_left_is_no_state_and_goes_at_the_next_start(
    place: str, tmp_path: Path
) -> None:
    write(f"{place}/32")
    kept = checkpoint.files(place)
    deaths = 0
    while True:
        with checkpoint.writing(f"{place}/96") as aside:
            for name in ("a", "weights", "z"):
                (aside / name).write_bytes(b"\x00")
        whole = checkpoint.files(f"{place}/96")
        if not remove_and_die(f"{place}/96", deaths):
            break
        found = checkpoint.files(f"{place}/96")
        assert checkpoint.latest(place) == ((96, f"{place}/96") if found == whole else (32, f"{place}/32"))
        if "://" not in place:
            assert found in (whole, {}), "half a state is called by another name"
        checkpoint.clear_leftovers(tmp_path)
        assert checkpoint.remove(f"{place}/96")
        assert checkpoint.files(place) == kept
        deaths += 1
    assert deaths >= 4
    assert checkpoint.files(place) == kept


def test_what_a_killed_process_fetched_goes_with_the_next_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/sweep-state-dead").mkdir()
    place = f"memory://{uuid.uuid4()}/96"
    write(place)
    with checkpoint.fetched(place) as one:
        with checkpoint.fetched(place) as another:
            assert (one / "weights").is_file()
        assert list((tmp_path / "scratch").iterdir()) == [one] != [another]
    assert not list((tmp_path / "scratch").iterdir())


class Refusing(LocalFileSystem):
    """Takes nothing, and tells too much of why."""

    protocol = "refusing"

    def put_file(self, lpath: Any, rpath: Any, **kwargs: Any) -> None:
        raise PermissionError("403: signature of key=hunter2 does not match")


@pytest.mark.parametrize("kind", ["packed", "synthetic"])
def test_a_place_that_cant_be_written_ends_the_search_and_fails_no_trial(
    kind: str, inputs: Inputs, tmp_path: Path
) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    given = replace(inputs, place=f"refusing://{tmp_path}/states")
    engine = (
        Packed(inputs=given, slots=1, tokens=256) if kind == "packed" else Synthetic(inputs=given, noise=0.0)
    )
    with pytest.raises(
        TrainingError, match=r"could not be reached or written \(PermissionError\)"
    ) as refused:
        reports(engine, job(0, 24))
    assert "hunter2" not in str(refused.value)
    engine.close()


# Engines and studies on URLs


@pytest.mark.parametrize("engine", ["packed", pytest.param("solo", marks=pytest.mark.slow)])
def test_training_goes_on_from_a_url_as_from_a_folder(engine: str, inputs: Inputs, tmp_path: Path) -> None:
    adapters = []
    for place in (None, f"memory://{uuid.uuid4()}"):
        given = replace(inputs, place=place)
        made = (
            Packed(inputs=given, slots=1, tokens=256)
            if engine == "packed"
            else Solo(inputs=given, micro_batch=8)
        )
        (first,) = reports(made, job(0, 24))
        (second,) = reports(made, job(24, 48, checkpoint=first.checkpoint))
        (scored,) = reports(made, job(48, 48, checkpoint=second.checkpoint))
        made.close()
        assert [one.state for one in (first, second, scored)] == ["reached"] * 3
        assert scored.checkpoint == second.checkpoint
        assert str(second.checkpoint).startswith(place or str(inputs.folder))
        exported = checkpoint.export_adapter(second.checkpoint or "", tmp_path / engine / str(bool(place)))
        adapters.append((load_file(exported / "adapter_model.safetensors"), second.validation_loss))
    (ours, loss), (theirs, other) = adapters
    assert loss == other
    assert all((ours[name] == theirs[name]).all() for name in ours.keys() | theirs.keys())


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    given = replace(synthetic_inputs(tmp_path), place=f"file://{tmp_path}/shared")
    made = Pool(
        make_engine=_Made(given),
        logs=str(tmp_path / "workers"),
        workers=2,
        devices_per_worker=1,
        start_seconds=300,
        silent_seconds=300,
        deaths=2,
    )
    yield made
    made.close()


class _Made:
    """Picklable."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def __call__(self) -> Synthetic:
        return Synthetic(inputs=self._inputs, noise=0.01)


@pytest.mark.slow
def test_workers_share_states_below_a_url(pool: Pool, tmp_path: Path) -> None:
    place = f"file://{tmp_path}/shared"
    study = open_study(trials=12, disk=Disk(place))
    search(study, pool, [])
    expected = synthetic_engine(tmp_path).expected
    for one in study.standings:
        for rung, loss in one.values.items():
            assert loss == expected(one.trial.recipe, rung, one.trial.seed)
    complete = {f"{one.trial.id}/288" for one in study.standings if one.state == "complete"}
    assert {path.rpartition("/")[0] for path in checkpoint.files(place)} == complete
    assert not (tmp_path / "checkpoints").exists()


def test_whenever_a_driver_is_killed_it_goes_on_from_a_url(tmp_path: Path) -> None:
    place = f"memory://{uuid.uuid4()}"

    def begin(storage: Any) -> Any:
        study = open_study(storage, trials=6, scheduler=Full(), disk=Disk(place))
        inputs = replace(synthetic_inputs(tmp_path), place=place)
        return run_study(study, Synthetic(inputs=inputs, noise=0.01))

    study, _ = survived(begin, first=17)
    assert [one.state for one in study.standings] == ["complete"] * 6
    assert len(checkpoint.files(place)) == 2 * 6


def test_a_state_below_a_url_that_is_broken_costs_the_way_from_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"memory://{uuid.uuid4()}"
    study = open_study(scheduler=Pruned(eta=3, rungs=3, pruner=NopPruner()), trials=1, disk=Disk(place))
    begun: list[int] = []

    class Spoil:
        """Once the second rung is reached; the files stay where they are: only their reader notices."""

        def log(self, event: Progress | Report) -> None:
            if isinstance(event, Report) and event.job == "0@96":
                spoil(f"{place}/0/96/state.json", b"half")
            if isinstance(event, Progress) and event.job == "0@288" and not begun:
                begun.append(event.examples_seen)

    engine = Synthetic(inputs=replace(synthetic_inputs(tmp_path), place=place), noise=0.01)
    run_study(study, engine, Spoil())
    assert begun == [32 + study.standing("0").trial.recipe.batch_size]
    assert "Trial 0 goes on from an earlier state" in caplog.text
    assert study.standing("0").state == "complete"
    assert study.standing("0").loss == engine.expected(study.standing("0").trial.recipe, 288, 0)
