"""A sweep on a disk that is too small says so, and goes on once it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.__main__ import sweep
from sweep.commands import run_command
from sweep.config import compose
from sweep.search.storage import open_storage
from sweep.search.stored import read_study
from tests.mounts import mounted, resize


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_cannot_fit_is_refused_before_anything_is_trained(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(work / "small", 10_000_000) as small:
        asked = ["+experiment=smoke", "engine=synthetic", f"output={small}/runs"]
        assert run_command("sweep", asked, sweep) == 2
    told = capsys.readouterr().err
    assert "budget.disk_gb=null: a checkpoint takes up to 4.1 kB, and this sweep needs 20" in told
    for way in ("Free space", "checkpoints, output", "space.lora_rank", "engine.slots", "confirm.seeds"):
        assert way in told
    assert read_study(open_storage(compose(asked).storage), "smoke").standings == ()


@pytest.mark.slow
def test_a_sweep_whose_disk_is_full_goes_on_once_there_is_room(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(work / "small", 300_000) as small:
        # What lies below `checkpoints` fits; the report, some megabytes, does not.
        asked = ["+experiment=smoke", "engine=synthetic", f"output={small}/runs", "budget.disk_gb=1"]
        assert run_command("sweep", asked, sweep) == 2
        told = capsys.readouterr().err
        assert "No space left on device" in told
        assert "What is done is kept; go on with:\n  python -m sweep +experiment=smoke" in told
        before = read_study(open_storage(compose(asked).storage), "smoke").standings
        resize(small, 60_000_000)
        assert run_command("sweep", asked, sweep) == 0
        after = read_study(open_storage(compose(asked).storage), "smoke").standings
        assert [one.trial.number for one in after] == list(range(8))
        assert [(one.trial.recipe, one.values) for one in after][: len(before)] == [
            (one.trial.recipe, one.values) for one in before
        ]
