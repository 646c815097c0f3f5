"""`python -m sweep.status +experiment=NAME`: where a sweep stands, seen from another terminal."""

from __future__ import annotations

import sys

from sweep.commands import run_reader
from sweep.config import Place


def status(place: Place) -> int:
    """Print every trial's standing and what is left, from the study's storage; nothing is written."""
    from sweep.driver import living_driver
    from sweep.reporting.console import Transcript, tell_status
    from sweep.search.lock import writer_of
    from sweep.search.storage import open_stored
    from sweep.search.stored import read_study

    storage = open_stored(place.storage)
    study = read_study(storage, place.study)
    driver = living_driver(place.output) or writer_of(storage, place.study)
    tell_status(Transcript(), study, driver=driver)
    return 0


if __name__ == "__main__":
    sys.exit(run_reader("sweep.status", sys.argv[1:], status))
