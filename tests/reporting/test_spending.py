"""What was spent and what is left, as people read it."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from sweep.analysis.effects import effects_of
from sweep.reporting.console import Transcript, tell_confirmation_begin, tell_status
from sweep.reporting.html import render
from sweep.reporting.live import Scoreboard
from sweep.reporting.markdown import as_markdown
from sweep.reporting.spending import budget_of, left_of, spent_of, total_of
from sweep.search.allowance import Spent
from sweep.search.standings import Standings
from sweep.search.stored import StoredStudy, read_study
from tests.studies import PLAN, budget, open_study, run_study, standing, synthetic_engine

RENTED = budget(trials=32, minutes=90.0, gpu_hours=8.0, cost=20.0, price_per_device_hour=2.5)
SPENT = Spent(seconds=48 * 60.0, device_seconds=3.2 * 3600)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    storage = InMemoryStorage()
    run_study(open_study(storage), synthetic_engine(tmp_path_factory.mktemp("study")))
    read = read_study(storage, PLAN.name)
    return replace(read, spent=SPENT, notes=replace(read.notes, budget=RENTED))


def transcript() -> tuple[Transcript, io.StringIO]:
    told, out = Transcript(), io.StringIO()
    told.console = Console(file=out, width=200)
    return told, out


def test_each_budget_is_told_with_what_is_spent_and_left() -> None:
    used, left = "48.0 of 90 min, 3.20 of 8 GPU h, 8.0 of 20 EUR", "42.0 min, 4.80 GPU h, 12.0 EUR"
    assert total_of(RENTED.bounds, SPENT) == used
    assert left_of(RENTED.bounds, SPENT) == left
    assert spent_of(RENTED.bounds, SPENT) == f"{used} spent; left: {left}"


def test_what_has_no_bound_is_told_by_itself() -> None:
    assert total_of((), SPENT) == "48 min, 3.2 device h"
    assert total_of(budget(gpu_hours=8.0).bounds, SPENT) == "48 min, 3.20 of 8 GPU h"
    assert total_of(budget(minutes=90.0).bounds, SPENT) == "48.0 of 90 min, 3.2 device h"
    assert spent_of((), SPENT) == left_of((), SPENT) == ""


def test_more_than_was_given_leaves_nothing() -> None:
    assert spent_of(budget(gpu_hours=2.0).bounds, SPENT) == "3.20 of 2 GPU h spent; left: 0.00 GPU h"


@pytest.mark.parametrize(
    ("most", "text"),
    [(0.05, "0.0123 of 0.05"), (8.0, "0.01 of 8"), (1e6, "0 of 1,000,000"), (12345.5, "0 of 12,345.5")],
)
def test_an_amount_has_three_digits_at_its_bound(most: float, text: str) -> None:
    told = spent_of(budget(gpu_hours=most).bounds, Spent(1.0, 0.0123 * 3600))
    assert told.startswith(f"{text} GPU h spent")


def test_the_live_line_ends_with_it() -> None:
    for words, end in (("1 of 8 min spent", "  |  1 of 8 min spent"), ("", "time left unknown yet")):
        out = io.StringIO()
        shown = standing(0, {32: 2.0})
        with Scoreboard(
            Console(file=out, width=60),
            standings=Standings([shown]),
            names=[],
            trials=1,
            examples=200,
            seconds_left=lambda: math.inf,
            spent=lambda words=words: words,  # type: ignore[misc]
        ) as board:
            board.log(shown.reports[0])
        assert out.getvalue().rstrip("\n").endswith(end)


def test_status_report_and_description_agree(study: StoredStudy) -> None:
    told, out = transcript()
    tell_status(told, study, driver=None)
    assert (
        "spent    48.0 of 90 min, 3.20 of 8 GPU h, 8.0 of 20 EUR; left: 42.0 min, 4.80 GPU h, 12.0 EUR\n"
        in out.getvalue()
    )
    effects = effects_of(study.standings, study.space, seed=0)
    page = render(study, effects)
    for text in (
        "<b>3.20</b><span>of 8 GPU h; 8.0 of 20 EUR</span>",
        "48.0 of 90 min for the whole sweep",
        budget_of(study),
    ):
        assert text in page
    assert budget_of(study) == "12 trials, 90 min, 8 GPU h, 20 EUR at 2.5 an hour"
    assert "Spent: 48.0 of 90 min, 3.20 of 8 GPU h, 8.0 of 20 EUR." in as_markdown(study, effects)


def test_without_a_budget_they_tell_time_and_device_hours(study: StoredStudy) -> None:
    bare = replace(study, notes=replace(study.notes, budget=None))
    told, out = transcript()
    tell_status(told, bare, driver=None)
    assert "spent    48 min, 3.2 device h\n" in out.getvalue()
    page = render(bare, effects_of(bare.standings, bare.space, seed=0))
    assert "<b>3.2</b><span>no limit was given</span>" in page
    assert "48 min for the whole sweep" in page


def test_the_time_that_status_foresees_ends_with_the_budget(study: StoredStudy) -> None:
    """An hour for as many examples as are to come; of 6 GPU h the search may take 4.8, and 3.2 are spent."""
    trained = sum(one.reached for one in study.standings)
    going = replace(study, trials=24, examples=2 * trained, seconds_spent=3600.0, devices=3)
    for hours, text in ((6.0, "about 32 min left"), (3.0, "about 0 s left"), (1e3, "about 60 min left")):
        told, out = transcript()
        notes = replace(going.notes, budget=budget(gpu_hours=hours))
        tell_status(told, replace(going, notes=notes), driver="process 1")
        assert text in out.getvalue()


@pytest.mark.parametrize(
    ("workers", "left", "end"),
    [
        (1, math.inf, "about 12 min"),
        (2, math.inf, "about 6 min"),
        (4, math.inf, "about 4 min"),
        (1, 600.0, "about 12 min, more than the 10 min that the budget leaves"),
        (2, 600.0, "about 6 min"),
        (1, -5.0, "about 12 min, more than the 0 s that the budget leaves"),
    ],
)
def test_confirmation_says_how_long_so_many_workers_take_and_what_the_budget_lacks(
    workers: int, left: float, end: str
) -> None:
    """Two trials with three seeds each, two minutes a training."""
    finalists = [standing(0, {288: 2.0}, "complete", seconds=120.0), standing(3, {288: 1.0}, "complete")]
    told, out = transcript()
    tell_confirmation_begin(told, finalists, seeds=3, rows=9, workers=workers, seconds_left=left)
    assert out.getvalue().endswith(f"; {end}\n")
