"""MLflow's server is killed while a sweep runs, for half a minute and for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.sweeps import PATIENCE_SECONDS, Outline, Sweep, tally, tracked
from tests.tracking.server import Server

pytestmark = pytest.mark.faults
AWAY_SECONDS = 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: it takes 14 s to start."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(running: Server) -> Server:
    running.start()
    return running


def test_a_server_that_is_away_for_half_a_minute_misses_nothing(
    server: Server, tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    sweep = Sweep(tmp_path, trials=60, pace=0.02, tracking=server.uri, experiment="away")
    with sweep.running() as process:
        sweep.until_told(process, 3)
        server.kill()
        sweep.lives(process, AWAY_SECONDS)
        heard = len(sweep.told)
        server.start()
        seconds = sweep.until(process, lambda: "answers again and holds everything" in sweep.log)
        assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
    assert heard > 6, "the search went on meanwhile"
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=1, trials=trials, runs=runs, seconds=seconds)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)


def test_a_server_that_stays_away_stops_nothing_and_gets_everything_later(
    server: Server, tmp_path: Path, undisturbed: Sequence[Outline], tell_fault: Callable[..., None]
) -> None:
    sweep = Sweep(tmp_path, trials=24, pace=0.005, tracking=server.uri, experiment="gone")
    with sweep.running() as process:
        sweep.until_told(process, 3)
        server.kill()
        assert process.wait(PATIENCE_SECONDS) == 0, sweep.log
    assert "run the same command again" in sweep.log
    server.start()
    sweep.run()
    trials, runs = tally(sweep, undisturbed), tracked(sweep)
    tell_fault(injected=1, trials=trials, runs=runs)
    assert (trials.lost, trials.doubled) == (0, 0)
    assert (runs.lost, runs.doubled) == (0, 0)
