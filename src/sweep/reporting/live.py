"""What a person watches while a search runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweep.analysis.axes import shown, title
from sweep.analysis.trades import aims_of
from sweep.search.standings import Standings
from sweep.types import Progress, Report, Standing

_ROWS_SHOWN = 24


class Scoreboard:
    """An observer that shows where the trials stand; on a terminal the newest, from another thread.

    names: the searched parameters. trials, examples: expected of the whole search. seconds_left: of
    the budget, infinite without one. spent: of it, in words, empty without one.
    """

    def __init__(
        self,
        console: Console,
        *,
        standings: Standings,
        names: Sequence[str],
        trials: int,
        examples: int,
        seconds_left: Callable[[], float],
        spent: Callable[[], str],
    ) -> None:
        self._console = console
        self._standings = standings
        self._names = names
        self._trials = trials
        self._examples = examples
        self._seconds_left = seconds_left
        self._spent = spent
        self._begun = time.monotonic()
        self._tokens = 0
        self._trained = 0
        self._latest: dict[str, Progress] = {}
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2, transient=False)

    def __enter__(self) -> Scoreboard:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Progress):
            seen = self._latest.get(event.trial)
            before = seen.examples_seen if seen else self._standings.of(event.trial).reached
            self._trained += event.examples_seen - before
            self._tokens += event.tokens
            self._latest[event.trial] = event
        elif not self._console.is_terminal:
            self._console.print(self._line(event), highlight=False, soft_wrap=True)

    def _line(self, report: Report) -> str:
        standing = self._standings.of(report.trial)
        result = f"loss {report.validation_loss:.4f}" if report.validation_loss is not None else report.state
        parameters = " ".join(f"{name}={text}" for name, text in parameters_of(standing, self._names).items())
        reached = f"{report.examples_seen:>6} examples"
        if standing.folds is not None:
            # Before its report is in, a fold has no loss yet.
            reached = f"fold {len(standing.values) + (report.state != 'reached')} of {standing.folds}"
        outcome = f"{reached}  {result:<12} {standing.state:<9}"
        fails = f"  {failing(standing)}" if standing.broken else ""
        summary = self._summary() + self._budget("  |  ")
        return f"  trial {report.trial:>3} {outcome} {parameters}{fails}  |  {summary}"

    def _summary(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        best = self._standings.ahead
        leader = f"{leading(best)} ({named(best)})  |  " if best else ""
        return f"{leader}{self._tokens / seconds:,.0f} tokens/s  |  {self._time_left(seconds)}"

    def _budget(self, mark: str) -> str:
        return f"{mark}{told}" if (told := self._spent()) else ""

    def _time_left(self, seconds: float) -> str:
        if not self._trained:
            return "time left unknown yet"
        begun, trained = len(self._standings), self._standings.examples
        rest = examples_left(begun, trained, trials=self._trials, examples=self._examples)
        left = min(rest * seconds / self._trained, self._seconds_left())
        return f"about {duration(max(left, 0))} left"

    def _table(self) -> Table:
        table = standings_table(self._standings, self._names, self._latest, rows=_ROWS_SHOWN)
        # A line of its own: a narrow table would break it anywhere.
        table.caption, table.caption_justify = self._summary() + self._budget("\n"), "left"
        return table


def standings_table(
    standings: Standings,
    names: Sequence[str],
    latest: Mapping[str, Progress],
    *,
    rows: int | None = None,
) -> Table:
    """The newest trials, or all, one a line. latest: of trials that run, by id."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Folded where it is narrow: a number cut off is worse than one on two lines.
    best, shown = standings.ahead, standings[-rows:] if rows else standings
    aims = aims_of([*shown, *([best] if best else [])])
    for heading in ("trial", *map(title, names), "examples", "loss", *(title(aim.aim) for aim in aims)):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("state", overflow="fold")
    for standing in shown:
        cells = _cells(standing, names, latest.get(standing.trial.id), aims=len(aims))
        table.add_row(*cells, style=_style(standing, leads=standing is best))
    return table


def _cells(standing: Standing, names: Sequence[str], live: Progress | None, *, aims: int) -> list[str]:
    seen = max(standing.reached, live.examples_seen if live else 0)
    loss = f"{standing.loss:.4f}" if standing.values else "-"
    trains = f" · train {live.train_loss:.2f}" if live and standing.state == "running" else ""
    fails = f" · {failing(standing)}" if standing.broken else ""
    return [
        standing.trial.id,
        *parameters_of(standing, names).values(),
        str(seen),
        loss,
        *([f"{one.value:.4g}" for one in standing.aims] or ["-"] * aims),
        f"{standing.state}{trains}{fails}",
    ]


def _style(standing: Standing, *, leads: bool) -> str | None:
    if leads:
        return "bold" if standing.broken else "bold green"
    return "dim" if standing.broken or standing.state in ("pruned", "diverged", "failed") else None


def examples_left(begun: int, trained: int, *, trials: int, examples: int) -> float:
    """Still to be trained of a search that expected so many trials and examples, once so many are done.

    At least what the trials to come cost if they go on as those before: schedulers that promote
    whoever is ahead on arrival train more than expected.
    """
    return max(examples - trained, (trials - begun) * trained / begun if begun else 0, 0)


def leading(standing: Standing, *, when: str = "") -> str:
    """What the trial that leads is worth, by the search's aims or by its loss. when: such as " so far"."""
    if not standing.aims:
        return f"best{when} {standing.loss:.4f}"
    return f"knee{when} {', '.join(f'{title(one.aim)} {one.value:.4g}' for one in standing.aims)}"


def progress_of(standing: Standing) -> str:
    """How far it came, for people."""
    if standing.folds is None:
        return f"after {standing.reached} examples"
    return f"after {len(standing.values)} of {standing.folds} folds"


def failing(standing: Standing) -> str:
    """Which guards keep a trial from winning."""
    return f"fails guard {', '.join(standing.broken)}"


def named(standing: Standing) -> str:
    """The trial, and what keeps it from winning, if anything does."""
    name = f"trial {standing.trial.id}"
    return f"{name}, {failing(standing)}" if standing.broken else name


def parameters_of(standing: Standing, names: Sequence[str]) -> Mapping[str, str]:
    """Searched values as people write them."""
    fields = asdict(standing.trial.recipe)
    return {name: shown(fields[name]) for name in names}


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
