"""The clock jumps by an hour, there and back: nothing happens, for nothing is timed by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sweep.paths import packaged_root
from tests.faults.machine import Clock
from tests.search.test_outage import undisturbed

DRIVER = """
import json, struct, sys, time
from itertools import cycle
from pathlib import Path

import psycopg

from tests.search.test_outage import driven, outline
from tests.studies import open_study, run_study, synthetic_engine
from sweep.types import Report

folder, url = Path(sys.argv[1]), sys.argv[2]
offsets, seen, begun = cycle([3600, -3600, 0]), set(), time.time() - time.monotonic()
ENDING = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'process%'"


class Jumping:
    left = 3

    def log(self, event):
        if not isinstance(event, Report):
            return
        self.left -= 1
        if self.left == 0:
            self.left = 3
            if url.startswith("postgresql"):
                with psycopg.connect(url.replace("+psycopg", "")) as connection:
                    connection.execute(ENDING)
            with (folder / "offset").open("r+b") as offset:
                offset.write(struct.pack("q", next(offsets)))
            seen.add(round((time.time() - time.monotonic() - begun) / 3600))


with driven(url) as storage:
    run_study(open_study(storage), synthetic_engine(folder), Jumping())
    print(json.dumps([sorted(seen), outline(storage)]))
"""


def test_a_clock_that_is_an_hour_off_changes_nothing(url: str, tmp_path: Path) -> None:
    """Nor where the connection is lost at the same time."""
    path = os.pathsep.join([str(packaged_root()), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), url],
        env={**os.environ, **Clock(tmp_path).environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hours, found = json.loads(done.stdout)
    assert hours == [-1, 0, 1]
    assert found == undisturbed(tmp_path)
    assert done.stderr == ""
