"""What is said where a Ray cluster can't be had as asked, without one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from sweep.backends import devices
from sweep.backends.messages import Raised
from sweep.backends.ray import Ray, room_here
from sweep.config import compose
from sweep.errors import ConfigError
from sweep.paths import packaged_root
from tests.backends.engines import Noted
from tests.studies import synthetic_inputs


def made(folder: Path, **settings: object) -> Ray:
    options = {
        "address": "auto",
        "workers": 2,
        "gpus_per_worker": 0,
        "cpus_per_worker": 1,
        "idle_seconds": 300,
        "start_seconds": 300,
        "silent_seconds": 60,
        "deaths": 2,
        **settings,
    }
    make_engine = partial(Noted, inputs=synthetic_inputs(folder))
    return Ray(
        make_engine=make_engine,
        logs=str(folder / "workers"),
        checkpoints=str(folder / "checkpoints"),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("address", ["", "localhost", "ray://host:10001", "host:", "host:port", "a host:1"])
def test_an_address_is_host_and_port(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^backend\.address: must be null, auto, or host:port"):
        made(tmp_path, address=address)


@pytest.mark.parametrize("address", ["auto", "10.1.2.3:6379", "head.cluster.local:6379"])
def test_no_cluster_is_looked_for_before_there_is_a_job(address: str, tmp_path: Path) -> None:
    made(tmp_path, address=address).close()


@pytest.mark.parametrize("share", [-1, 1.5, 2.01])
def test_gpus_are_shared_or_whole(share: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^backend\.gpus_per_worker: must be a share of a GPU from 0 to 1"):
        made(tmp_path, gpus_per_worker=share)


@pytest.mark.parametrize(
    ("gpus", "cpus", "room"),
    [
        (1, 1, 4),
        (2, 1, 2),
        (3, 1, 1),
        (0.5, 1, 8),
        (0.4, 1, 8),
        (0, 1, 8),
        (0, 4, 2),
        (1, 4, 2),
        (0, 0.5, 16),
    ],
)
def test_as_many_workers_as_the_machine_has_room_for(
    gpus: float, cpus: float, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four GPUs and eight cores."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: 4)
    monkeypatch.setattr("sweep.backends.ray.cores", lambda: 8)
    assert room_here(None, gpus=gpus, cpus=cpus) == room
    assert room_here(room, gpus=gpus, cpus=cpus) == room
    with pytest.raises(ConfigError, match=rf"^backend\.workers: {room + 1} is more .*workers={room},"):
        room_here(room + 1, gpus=gpus, cpus=cpus)


def test_a_machine_without_a_gpu_has_no_room_for_a_worker_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda: 0)
    with pytest.raises(ConfigError, match=r"there are none that .* 0 GPUs.*backend\.gpus_per_worker=0, "):
        room_here(None, gpus=1, cpus=1)


@pytest.mark.parametrize("lacking", ["output", "checkpoints"])
def test_a_folder_that_a_node_does_not_see_is_named(lacking: str, tmp_path: Path) -> None:
    from sweep.backends.ray_post import Hire, Post

    marks = {key: tmp_path / key / "driver-1" for key in ("output", "checkpoints")}
    for key, mark in marks.items():
        mark.parent.mkdir()
        if key != lacking:
            mark.touch()
    hire = Hire(name="3", setting=b"", log=tmp_path / "3.log", marks=marks, folder=tmp_path)
    (message,), end = Post({}).start(hire)
    raised = pickle.loads(message)
    assert isinstance(raised, Raised)
    assert isinstance(raised.error, ConfigError)
    assert str(raised.error).startswith(f"{lacking}: {marks[lacking]}, which the driver wrote, is not on ")
    assert f"Set {lacking} to one on a file system that they share" in str(raised.error)
    assert end == "gone"


def test_checkpoints_are_where_the_sweep_keeps_them() -> None:
    elsewhere = ["+experiment=smoke", "backend=ray", "backend.gpus_per_worker=0", "checkpoints=/shared/mine"]
    assert compose(elsewhere).backend.arguments["checkpoints"] == "/shared/mine"


def test_without_ray_it_says_what_to_install() -> None:
    told = """
from sweep.backends.ray import Ray
Ray(make_engine=None, logs="", checkpoints="", address="auto", workers=1, gpus_per_worker=0,
    cpus_per_worker=1, idle_seconds=1, start_seconds=1, silent_seconds=1, deaths=1)
"""
    # Without site-packages.
    bare = subprocess.run(
        [sys.executable, "-S", "-c", told],
        env={"PYTHONPATH": str(packaged_root() / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ConfigError: backend=ray: Ray is not installed. Run pip install 'sweep[ray]'." in bare.stderr
