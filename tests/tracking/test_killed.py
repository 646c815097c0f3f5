"""A driver killed with `kill -9`, in whatever it and its writer are at."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.tracking.killed import read
from tests.tracking.sweeps import Shop, Sweep, assert_stored_once, runs_of


def drive(shop: Shop, fingerprint: str, *, line: int | None = None, seconds: float = 0.0) -> int:
    """The driver's exit code; killed `seconds` after it said so many lines, if any."""
    command = [sys.executable, "-m", "tests.tracking.killed", shop.uri, str(shop.folder), fingerprint]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout, start=1):
            if number == line:
                threading.Timer(seconds, process.kill).start()
    return process.returncode


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="once"), pytest.param(10, id="ten times", marks=pytest.mark.slow)]
)
def test_a_driver_killed_anywhere_leaves_every_point_once(shop: Shop, kills: int) -> None:
    draw = random.Random(kills)
    fingerprint = Sweep().fingerprint
    codes = [
        drive(shop, fingerprint, line=draw.choice([1, 2, 3, 5, 8]), seconds=draw.uniform(0, 0.2))
        for _ in range(kills)
    ]
    assert drive(shop, fingerprint) == 0
    # Those after it have less to do, and may come to their end before that.
    assert codes[0] == -9
    assert set(codes) <= {-9, 0}
    sweep = read(shop.folder, fingerprint)
    assert_stored_once(shop, sweep)
    assert runs_of(shop, sweep)[0].info.status == "FINISHED"
