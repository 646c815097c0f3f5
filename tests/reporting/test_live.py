"""What is shown while a search runs."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from sweep.reporting.live import Scoreboard, duration, examples_left, standings_table
from sweep.reporting.summary import refusal_of
from sweep.search.standings import Standings
from sweep.types import Progress, Report, Standing, Trial, TrialState, Verdict
from tests.contracts.engine import RECIPE


def standing(trial: str, values: dict[int, float], state: TrialState = "paused") -> Standing:
    reports = tuple(
        Report(job="", trial=trial, attempt=0, examples_seen=rung, state="reached", validation_loss=loss)
        for rung, loss in values.items()
    )
    return Standing(
        trial=Trial(id=trial, number=int(trial), recipe=RECIPE, seed=0, base=""), state=state, reports=reports
    )


def board(console: Console, *standings: Standing) -> Scoreboard:
    return Scoreboard(
        console,
        standings=Standings(standings),
        names=["learning_rate", "batch_size"],
        trials=len(standings),
        examples=200,
        seconds_left=lambda: math.inf,
        spent=str,
    )


def progress(trial: str, examples: int) -> Progress:
    return Progress(
        job="",
        trial=trial,
        examples_seen=examples,
        train_loss=2.5,
        gradient_norm=1.0,
        learning_rate=1e-3,
        tokens=100,
    )


def test_trials_to_come_cost_at_least_what_those_before_did() -> None:
    assert examples_left(2, 128, trials=4, examples=200) == 128
    assert examples_left(2, 128, trials=2, examples=200) == 72
    assert examples_left(2, 128, trials=2, examples=100) == 0
    assert examples_left(0, 0, trials=2, examples=100) == 100


def test_without_a_terminal_each_report_is_one_line() -> None:
    out = io.StringIO()
    shown = standing("0", {32: 2.1234}, "paused")
    with board(Console(file=out, width=60), shown) as lines:
        lines.log(progress("0", 16))
        lines.log(progress("0", 32))
        lines.log(shown.reports[0])
    (line,) = out.getvalue().splitlines()
    for part in ("trial   0", "32 examples", "loss 2.1234", "paused", "learning_rate=3e-3", "batch_size=8"):
        assert part in line
    assert "best 2.1234 (trial 0)" in line
    assert "tokens/s" in line


def reciting(trial: str) -> Standing:
    verdict = Verdict(
        check="verbatim", passed=False, severity="error", value=0.5, limit=0.2, message="it recites"
    )
    return replace(standing(trial, {32: 1.0}, "complete"), verdicts=(verdict,), violation=0.6)


def test_who_fails_a_guard_is_shown_as_such_and_leads_only_where_all_do() -> None:
    fails, passes = reciting("0"), standing("1", {32: 2.0}, "complete")
    for shown, best in (([fails, passes], "trial 1"), ([fails], "trial 0, fails guard verbatim")):
        out = io.StringIO()
        with board(Console(file=out, width=60), *shown) as lines:
            lines.log(fails.reports[0])
        assert "batch_size=8  fails guard verbatim  |" in out.getvalue()
        assert f"({best})" in out.getvalue()
    out = io.StringIO()
    Console(file=out, width=120).print(standings_table(Standings([fails, passes]), [], {}))
    assert "complete · fails guard verbatim" in out.getvalue()


def test_a_report_without_a_loss_shows_its_state() -> None:
    out = io.StringIO()
    shown = standing("0", {}, "diverged")
    with board(Console(file=out, width=60), shown) as lines:
        lines.log(Report(job="", trial="0", attempt=0, examples_seen=8, state="diverged", error="nan"))
    assert "diverged" in out.getvalue()


def test_on_a_terminal_a_table_shows_every_trial_with_its_parameters() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    with board(console, standing("0", {32: 3.0}, "complete"), standing("1", {}, "running")) as table:
        table.log(progress("1", 24))
    text = out.getvalue()
    for part in ("learning rate", "loss", "3.0000", "complete", "24", "running", "train 2.50"):
        assert part in text


def test_the_time_left_never_exceeds_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    now = iter([0.0, 1000.0, 1000.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    shown = Standings([standing("0", {}, "running")])
    lines = Scoreboard(
        Console(file=out, width=60),
        standings=shown,
        names=[],
        trials=1,
        examples=200,
        seconds_left=lambda: 42.0,
        spent=str,
    )
    lines.log(progress("0", 32))
    shown.put(standing("0", {32: 2.0}))
    lines.log(shown[0].reports[0])
    assert "about 42 s left" in out.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_refused_trial_is_named_with_its_reason_where_it_would_lead() -> None:
    fails, passes = reciting("0"), standing("1", {32: 2.0}, "complete")
    assert refusal_of([fails, passes]) == (
        "Trial 0 has a lower loss, 1.0000 against 2.0000, and may not win: It recites."
    )
    better = standing("2", {32: 0.5}, "complete")
    for others in ([fails], [better, passes], [fails, better, passes], []):
        assert refusal_of(others) is None
