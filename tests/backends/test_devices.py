"""Which devices there are, who gets which, and what is said where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweep.backends import devices
from sweep.backends.auto import Auto
from sweep.backends.devices import environments_of, visible_gpus
from sweep.backends.pool import Pool
from sweep.errors import ConfigError
from sweep.search.loop import run_jobs
from tests.backends.engines import Noted, noted
from tests.contracts.engine import job
from tests.studies import synthetic_inputs


@pytest.fixture
def _four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: 4)


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda: 0)


@pytest.mark.usefixtures("_four_gpus")
@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, ("0", "1", "2", "3")),
        ("", ()),
        ("-1", ()),
        ("2", ("2",)),
        ("3, 1", ("3", "1")),
        ("0,-1,1", ("0",)),
        ("1,7,0", ("1",)),
        ("GPU-8932f937,MIG-GPU-1/2/3", ("GPU-8932f937", "MIG-GPU-1/2/3")),
        ("NoDevFiles", ()),
    ],
)
def test_the_gpus_are_those_that_cuda_would_see(
    chosen: str | None, seen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == seen


def test_as_many_gpus_are_found_as_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = "import torch; print(torch.cuda.device_count())"
    counted = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert len(visible_gpus()) == int(counted.stdout)


@pytest.mark.usefixtures("_four_gpus")
def test_each_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(None)] == ["0", "1", "2", "3"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(2)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments_of(None)] == ["3", "1"]


@pytest.mark.usefixtures("_no_gpu")
def test_threads_are_divided_unless_their_number_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments_of(cores) == [{"OMP_NUM_THREADS": "1"}] * cores
    assert environments_of(1) == [{"OMP_NUM_THREADS": str(cores)}]
    assert environments_of(3 * cores)[0] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environments_of(2) == [{}, {}]


@pytest.mark.usefixtures("_four_gpus")
def test_a_worker_sees_its_gpu_alone(tmp_path: Path) -> None:
    with closing(_made(Pool, tmp_path)) as backend:
        run_jobs([job(trial="a"), job(trial="b"), job(trial="c"), job(trial="d")], backend)
    assert sorted(line.split()[1] for line in noted(tmp_path, "engines")) == ["0", "1", "2", "3"]


def test_torch_is_not_imported_before_the_engine_is_sent() -> None:
    """A worker that had it could not choose its GPU any more."""
    told = "import sys, sweep.backends.worker; print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout == "False False\n"


@pytest.mark.usefixtures("_no_gpu")
def test_without_a_gpu_the_number_of_workers_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^backend\.workers: null means one per GPU.*backend=inline"):
        environments_of(None)


@pytest.mark.usefixtures("_four_gpus")
def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^backend\.workers: 5 is more than the 4 GPUs \(0, 1, 2, 3\)"):
        environments_of(5)


@pytest.mark.usefixtures("_four_gpus")
def test_a_group_has_gpus_of_its_own() -> None:
    pairs = environments_of(None, 2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in pairs] == ["0,1", "2,3"]
    assert {one["SWEEP_RANKS"] for one in pairs} == {"2"}
    (three,) = environments_of(1, 3)
    assert (three["CUDA_VISIBLE_DEVICES"], three["SWEEP_RANKS"]) == ("0,1,2", "3")


@pytest.mark.usefixtures("_no_gpu")
def test_the_processes_of_a_group_divide_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments_of(2, 3) == [{"OMP_NUM_THREADS": "2", "SWEEP_RANKS": "3"}] * 2


@pytest.mark.usefixtures("_four_gpus")
@pytest.mark.parametrize(
    ("workers", "each", "message"),
    [
        (
            None,
            5,
            r"^backend\.devices_per_worker: 5 is more than the 4 GPUs \(0, 1, 2, 3\).*worker=4 or less",
        ),
        (None, 3, r"^backend\.devices_per_worker: the 4 GPUs .* no multiple of 3, so 1 would.*workers=1 if"),
        (3, 2, r"^backend\.workers: 3 is more than the 4 GPUs .* takes 2 \(.*Write backend\.workers=2"),
        (None, 0, r"^backend\.devices_per_worker: must be at least 1; got 0"),
    ],
)
def test_groups_that_do_not_fit_the_gpus_are_refused(workers: int | None, each: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        environments_of(workers, each)


class TestAuto:
    @pytest.mark.usefixtures("_four_gpus")
    @pytest.mark.parametrize(("chosen", "engines"), [("0,1", 2), ("2", 1), ("", 1)])
    def test_two_gpus_make_a_pool(
        self, chosen: str, engines: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        with closing(_made(Auto, tmp_path)) as backend:
            run_jobs([job(trial="a"), job(trial="b")], backend)
        made = [line.split()[0] for line in noted(tmp_path, "engines")]
        assert len(made) == engines
        assert (str(os.getpid()) in made) == (engines == 1)

    @pytest.mark.usefixtures("_four_gpus")
    def test_groups_of_gpus_make_a_pool(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with pytest.raises(ConfigError, match=r"2 is more than the 1 GPU \(2\)"):
            _made(Auto, tmp_path, devices_per_worker=2)

    @pytest.mark.usefixtures("_no_gpu")
    def test_a_number_of_workers_makes_a_pool(self, tmp_path: Path) -> None:
        with closing(_made(Auto, tmp_path, workers=1)) as backend:
            run_jobs([job(trial="a")], backend)
        assert str(os.getpid()) not in [line.split()[0] for line in noted(tmp_path, "engines")]


def _made(kind: Any, folder: Path, *, workers: int | None = None, devices_per_worker: int = 1) -> Any:
    return kind(
        make_engine=partial(Noted, inputs=synthetic_inputs(folder)),
        logs=str(folder / "workers"),
        workers=workers,
        devices_per_worker=devices_per_worker,
        start_seconds=120,
        silent_seconds=60,
        deaths=2,
    )


def test_a_worker_whose_engine_needs_no_torch_imports_none() -> None:
    """It would be there in a fifth of the time, and a search on closed forms needs many."""
    told = "import sys, sweep.engines.inputs, sweep.engines.synthetic; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
