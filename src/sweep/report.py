"""`python -m sweep.report +experiment=NAME`: the report of a sweep, finished or not, as one HTML file."""

from __future__ import annotations

import sys

from sweep.commands import run_reader
from sweep.config import Place


def report(place: Place) -> int:
    """Write the report from the study's storage; the sweep may be running."""
    from sweep.analysis.effects import effects_of
    from sweep.reporting.html import write_report
    from sweep.search.storage import open_stored
    from sweep.search.stored import read_study

    study = read_study(open_stored(place.storage), place.study)
    effects = effects_of(study.standings, study.space, seed=study.seed)
    print(write_report(study, effects, place.output))
    return 0


if __name__ == "__main__":
    sys.exit(run_reader("sweep.report", sys.argv[1:], report))
