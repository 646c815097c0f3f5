"""A driver to be killed: a sweep whose study is a file, told to MLflow. Says when it begins and what it did.

python -m tests.tracking.killed <sqlite address> <folder> <fingerprint>
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from sweep.paths import write_whole
from tests.tracking.sweeps import RUNGS, Shop, Sweep, rung

EXPERIMENT = "killed driver"


class Stored(Sweep):
    """Its study is a file."""

    study: Path

    def record_rungs(self) -> None:
        reached = {trial: len(standing.reports) for trial, standing in self.standings.items()}
        write_whole(self.study, json.dumps(reached))

    def advance(self, name, tracker) -> None:
        super().advance(name, tracker)
        print(name, flush=True)
        time.sleep(0.05)


def read(folder: Path, fingerprint: str) -> Stored:
    """As the study has it, jobs at their last rung."""
    sweep = Stored(fingerprint=fingerprint)
    sweep.study = folder / f"{fingerprint}.json"
    reached = json.loads(sweep.study.read_text()) if sweep.study.exists() else {}
    for name, rungs in reached.items():
        reports = tuple(rung(name, examples) for examples in RUNGS[:rungs])
        state = "complete" if rungs == len(RUNGS) else "paused"
        sweep.standings[name] = replace(sweep.standings[name], state=state, reports=reports)
    sweep.crash()
    return sweep


def main() -> None:
    """Come to the end of the sweep, unless killed."""
    uri, folder, fingerprint = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    sweep = read(folder, fingerprint)
    print("begins", flush=True)
    tracker = sweep.tracker(Shop(uri, folder), EXPERIMENT)
    print("opened", flush=True)
    tracker.sync(list(sweep.standings.values()))
    sweep.complete(tracker)
    tracker.finish("FINISHED")


if __name__ == "__main__":
    main()
