"""Whatever a sweep stands on is killed at random for three minutes."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faults.sweeps import Sweep, outline, tally, tracked, workers_of
from tests.postgres import Postgres
from tests.postgres import running as running_postgres
from tests.tracking.server import Server

SEED = 0
SECONDS = 180
TRIALS = 300
WHAT = ("driver", "worker", "database", "server")
# A machine with other work takes longer for it.
LEAST = 3


@dataclass
class Chaos:
    """Kills until its time is over and each thing was killed a few times, and tells each time."""

    sweep: Sweep
    tell: Callable[[str], None]
    driver: psutil.Popen | None = None
    killed: Counter[str] = field(default_factory=Counter)
    end: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def again_and_again(
        self, what: str, kill: Callable[[random.Random], bool], pauses: Sequence[float]
    ) -> None:
        """After a random pause between two, in seconds, at the next report: where nothing goes on, nothing is
        disturbed. kill: returns whether it did.
        """
        draw = random.Random(f"{SEED}/{what}")
        while not self.over.wait(draw.uniform(*pauses)):
            reports = len(self.sweep.told)
            while len(self.sweep.told) == reports and not self.over.wait(0.2):
                pass
            if not self.over.is_set() and kill(draw):
                self.told(what)

    def kill_driver(self, draw: random.Random) -> int:
        """Start it and kill it a few reports later; the exit code. Once all is over, it may end."""
        with self.sweep.running() as self.driver:
            reports = len(self.sweep.told) + draw.randrange(3, 40)
            while self.driver.poll() is None and not self.over.wait(0.1):
                if len(self.sweep.told) >= reports:
                    self.driver.kill()
                    self.told("driver")
                    break
            return self.driver.wait()

    def told(self, what: str) -> None:
        self.killed[what] += 1
        self.tell(f"killed {what}, {self.killed[what]} times now")
        if time.monotonic() > self.end and all(self.killed[one] >= LEAST for one in WHAT):
            self.over.set()

    def kill_worker(self, draw: random.Random) -> bool:
        try:
            assert self.driver is not None
            draw.choice(workers_of(self.driver)).kill()
        except (psutil.NoSuchProcess, IndexError):
            # Between two drivers, or while one starts.
            return False
        return True

    def kill_database(self, database: Postgres, draw: random.Random) -> bool:
        database.stop(immediate=True)
        self.over.wait(draw.uniform(0, 10))
        database.start()
        return True

    def kill_server(self, server: Server, draw: random.Random) -> bool:
        server.kill()
        self.over.wait(draw.uniform(0, 20))
        server.start()
        return True


@contextmanager
def server_in(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.faults
def test_nothing_is_lost_or_doubled_whatever_is_killed(
    tmp_path: Path, tell_fault: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    undisturbed = Sweep(tmp_path / "undisturbed", trials=TRIALS, workers=1)
    undisturbed.run()
    with (
        server_in(tmp_path / "server") as server,
        running_postgres() as database,
        ThreadPoolExecutor() as threads,
    ):
        # A trial that is killed with its worker three times is given up, however good it is.
        sweep = Sweep(
            tmp_path / "sweep",
            trials=TRIALS,
            workers=4,
            pace=0.02,
            storage=database.create("chaos"),
            tracking=server.uri,
            given=["backend.deaths=1000"],
        )
        chaos = Chaos(sweep, tell)
        draw, starts = random.Random(f"{SEED}/driver"), Counter[int]()
        chaos.end = time.monotonic() + SECONDS
        doings = [
            threads.submit(chaos.again_and_again, "worker", chaos.kill_worker, (1, 8)),
            threads.submit(chaos.again_and_again, "server", partial(chaos.kill_server, server), (20, 40)),
            threads.submit(
                chaos.again_and_again, "database", partial(chaos.kill_database, database), (10, 40)
            ),
        ]
        try:
            while not chaos.over.is_set():
                before = len(sweep.log)
                code = chaos.kill_driver(draw)
                # A start finds no database, and says so.
                refused = code == 2 and "could not be opened" in sweep.log[before:]
                assert code == -9 or refused or chaos.over.is_set(), f"ended with {code}\n{sweep.log}"
                starts[code] += 1
        finally:
            chaos.over.set()
            for doing in doings:
                doing.result()
        sweep.run()
        trials, runs = tally(sweep, outline(undisturbed.storage)), tracked(sweep)
    tell(f"starts by how they ended: {dict(starts)}; {trials}; MLflow: {runs}")
    tell_fault(injected=chaos.killed.total(), trials=trials, runs=runs, killed=dict(chaos.killed))
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)
