"""Every fault that a sweep must outlive: how often it was injected, what was lost, when the work went on.

    python benchmarks/faults.py [WORDS ...]

Runs the tests that inject them, with real processes, servers and file systems, and prints a line for each.
Writes `results/faults.json` and the table of docs/reliability.md; with words, runs the rows that hold one of
them and keeps the others. Ends with 1 if any does not hold. As root, with PostgreSQL and a C compiler; a row
that can't be run here says why. Twenty minutes on two cores.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGINS, ENDS = "<!-- table -->\n", "\n<!-- end of the table -->"
DEATHS = "tests/backends/test_deaths.py"
COMMAND = "tests/test_pipeline.py"
FIGURES = ("trials", "lost", "doubled")


class Row(NamedTuple):
    """A fault, and the tests that inject it: files, functions or single cases."""

    fault: str
    tests: tuple[str, ...]


ROWS = (
    Row("kill -9 a worker before its first report", (f"{DEATHS}::test_a_dead_worker_loses_no_trial[begun]",)),
    Row("kill -9 a worker in mid-trial", (f"{DEATHS}::test_a_dead_worker_loses_no_trial[step]",)),
    Row(
        "kill -9 a worker between checkpoint and report",
        (f"{DEATHS}::test_a_dead_worker_loses_no_trial[saved]",),
    ),
    Row("kill -9 workers at random", (f"{DEATHS}::test_workers_killed_again_and_again_lose_no_trial",)),
    Row(
        "kill -9 the driver at random points",
        (
            "tests/faults/test_driver.py::"
            "test_a_driver_killed_at_random_points_loses_and_doubles_nothing[20 times]",
        ),
    ),
    Row(
        "kill -9 the driver while it confirms",
        ("tests/faults/test_driver.py::test_a_driver_killed_while_it_confirms_hands_over_the_same",),
    ),
    Row(
        "a trial that kills its worker each time",
        (f"{DEATHS}::test_a_trial_that_kills_each_worker_ends_alone_and_failed",),
    ),
    Row(
        "SIGSTOP a worker past its deadline, then SIGCONT",
        (f"{DEATHS}::test_a_stopped_worker_is_replaced_and_never_heard_again",),
    ),
    Row("SIGINT", (f"{COMMAND}::test_a_stopped_sweep_goes_on_to_the_same_end[2-130]",)),
    Row("SIGTERM", (f"{COMMAND}::test_a_stopped_sweep_goes_on_to_the_same_end[15-143]",)),
    Row(
        "SIGTERM, and again",
        ("tests/backends/test_command.py::test_a_second_signal_leaves_at_once_and_leaves_no_worker",),
    ),
    *(
        Row(
            f"PostgreSQL {what}",
            (
                f"tests/faults/test_database.py::test_a_database_that_goes_down_is_waited_for_and_misses_nothing[{case}]",
            ),
        )
        for what, case in (("crashes and is started again", "crashed-0"), ("away for 30 s", "away-30"))
    ),
    Row(
        "MLflow's server away for 30 s",
        ("tests/faults/test_tracking.py::test_a_server_that_is_away_for_half_a_minute_misses_nothing",),
    ),
    Row(
        "MLflow's server gone for good",
        (
            "tests/faults/test_tracking.py::test_a_server_that_stays_away_stops_nothing_and_gets_everything_later",
        ),
    ),
    Row(
        "no memory: a limit on the process",
        ("tests/engines/test_packed.py::test_a_real_limit_on_memory_changes_no_result",),
    ),
    Row(
        "no memory: the kernel kills a worker",
        ("tests/faults/test_memory.py::test_a_worker_killed_for_want_of_memory_costs_no_trial",),
    ),
    Row(
        "no memory for one trial, ever",
        (
            "tests/engines/test_packed.py::test_what_does_not_fit_alone_is_infeasible_with_the_bytes",
            "tests/faults/test_memory.py::test_a_trial_that_never_has_memory_enough_is_told_from_one_that_fails",
        ),
    ),
    Row(
        "a weight that is not a number",
        ("tests/engines/test_packed.py::test_a_poisoned_neighbour_changes_no_bit",),
    ),
    *(
        Row(f"disk full: {what}", (f"tests/faults/test_disk.py::{test}[{what}]",))
        for test in ("test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room",)
        for what in ("checkpoints", "study", "journal", "everything")
    ),
    Row(
        "checkpoints truncated, missing, bit-flipped",
        ("tests/faults/test_checkpoints.py::test_damaged_checkpoints_cost_a_stretch_and_no_trial",),
    ),
    Row(
        "clock an hour on, then an hour back",
        ("tests/faults/test_clock.py::test_a_clock_that_is_an_hour_off_changes_nothing",),
    ),
    Row("the same study started twice at once", (f"{COMMAND}::test_two_drivers_of_one_study_do_not_mix",)),
    Row(
        "bad configuration, bad data",
        ("tests/test_mistakes.py::test_a_mistake_is_answered_with_what_to_do", "tests/stages/test_audit.py"),
    ),
    Row(
        "three minutes of chaos: workers, driver, database, MLflow",
        ("tests/faults/test_chaos.py::test_nothing_is_lost_or_doubled_whatever_is_killed",),
    ),
)


class Heard:
    """How each case ended, in words where it was not run, and what it tells of its fault.

    Kept after each: who stops the script keeps what it has found.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.ended: dict[str, str] = {}
        self.told: dict[str, Mapping[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Once for each of setup, call and teardown."""
        if report.skipped:
            self.ended[report.nodeid] = f"not run: {str(report.longrepr[2]).removeprefix('Skipped: ')}"
        elif report.failed:
            self.ended[report.nodeid] = "broken"
        elif report.when == "call":
            self.ended.setdefault(report.nodeid, "held")
            for name, told in report.user_properties:
                if name == "fault":
                    self.told[report.nodeid] = told
        if report.when == "teardown":
            write(self.results)

    @property
    def results(self) -> list[dict[str, Any]]:
        """Of all rows that were run, now or before."""
        found = kept() | {row.fault: result(row, self) for row in self.rows if self.cases(row)}
        return [found[row.fault] for row in ROWS if row.fault in found]

    def cases(self, row: Row) -> list[str]:
        """Those of the row that have ended."""
        return [case for case in self.ended if any(_is_of(case, test) for test in row.tests)]


def result(row: Row, heard: Heard) -> dict[str, Any]:
    """What is printed and kept of a row. lost, doubled: of the trials; runs: the same of MLflow's."""
    cases = heard.cases(row)
    ended = {heard.ended[case] for case in cases}
    told = [heard.told[case] for case in cases if case in heard.told]
    trials = [one["trials"] for one in told if one["trials"]]
    runs = [one["runs"] for one in told if one["runs"]]
    seconds = [one["seconds"] for one in told if one["seconds"] is not None]
    return {
        "fault": row.fault,
        "date": time.strftime("%Y-%m-%d"),
        "held": "broken" if "broken" in ended else min(ended, key=lambda one: one == "held"),
        "injected": sum(one["injected"] for one in told) or len(cases),
        **{name: sum(one[at] for one in trials) if trials else None for at, name in enumerate(FIGURES)},
        "runs_lost": sum(one[1] for one in runs) if runs else None,
        "runs_doubled": sum(one[2] for one in runs) if runs else None,
        "seconds": round(max(seconds), 1) if seconds else None,
        **next(({"killed": one["killed"]} for one in told if "killed" in one), {}),
    }


def _is_of(case: str, test: str) -> bool:
    return case == test or case.startswith((f"{test}[", f"{test}::"))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    heading = ("fault", "injected", "trials", "lost", "doubled", "seconds until the work goes on", "")
    cells = [
        (row["fault"], *(row[name] for name in ("injected", *FIGURES, "seconds")), row["held"])
        for row in results
    ]
    lines = [heading, ("---", *["--:"] * 5, "---"), *cells]
    return "\n".join(
        "| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )


def kept() -> dict[str, dict[str, Any]]:
    """What was found before, by fault."""
    return {row["fault"]: row for row in json.loads(RESULT.read_text())["rows"]} if RESULT.exists() else {}


def write(results: Sequence[Mapping[str, Any]]) -> None:
    """Into the results and the page."""
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("optuna", "mlflow", "sqlalchemy", "psycopg")},
    }
    RESULT.write_text(json.dumps({"machine": machine, "rows": results}, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGINS)
    PAGE.write_text(f"{before}{BEGINS}{table(results)}{ENDS}{rest.partition(ENDS)[2]}")


def main(words: Sequence[str]) -> int:
    """The exit code."""
    rows = [row for row in ROWS if not words or any(word in row.fault for word in words)]
    heard = Heard(rows)
    tests = [str(ROOT / test) for row in rows for test in row.tests]
    # Whatever their markers say.
    ended = pytest.main(["--rootdir", str(ROOT), "-m", "", "-p", "no:cacheprovider", *tests], plugins=[heard])
    print(table(heard.results))
    return int(ended)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
