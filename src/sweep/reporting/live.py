"""What a person watches while a search runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweep.types import Progress, Report, Standing

_ROWS_SHOWN = 24


class Scoreboard:
    """An observer that shows where every trial stands.

    names: the searched parameters. examples: expected of the whole search. seconds_left: of the
    time budget, infinite without one.
    """

    def __init__(
        self,
        console: Console,
        *,
        standings: Callable[[], Sequence[Standing]],
        names: Sequence[str],
        examples: int,
        seconds_left: Callable[[], float],
    ) -> None:
        self._console = console
        self._standings = standings
        self._names = names
        self._examples = examples
        self._seconds_left = seconds_left
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
            self._trained += event.examples_seen - (
                seen.examples_seen if seen else self._reached(event.trial)
            )
            self._tokens += event.tokens
            self._latest[event.trial] = event
        elif not self._console.is_terminal:
            self._console.print(self._line(event), highlight=False, soft_wrap=True)

    def _reached(self, trial: str) -> int:
        return next((s.reached for s in self._standings() if s.trial.id == trial), 0)

    def _line(self, report: Report) -> str:
        standing = next(s for s in self._standings() if s.trial.id == report.trial)
        result = f"loss {report.validation_loss:.4f}" if report.validation_loss is not None else report.state
        parameters = " ".join(f"{name}={text}" for name, text in parameters_of(standing, self._names).items())
        outcome = f"{report.examples_seen:>6} examples  {result:<12} {standing.state:<9}"
        return f"  trial {report.trial:>3} {outcome} {parameters}  |  {self._summary()}"

    def _summary(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        best = best_of(self._standings())
        leader = f"best {best.loss:.4f} (trial {best.trial.id})  |  " if best else ""
        return f"{leader}{self._tokens / seconds:,.0f} tokens/s  |  {self._time_left(seconds)}"

    def _time_left(self, seconds: float) -> str:
        if not self._trained:
            return "time left unknown yet"
        rest = max(self._examples - sum(s.reached for s in self._standings()), 0)
        left = min(rest * seconds / self._trained, self._seconds_left())
        return f"about {duration(max(left, 0))} left"

    def _table(self) -> Table:
        table = Table(
            box=None, pad_edge=False, header_style="bold", caption=self._summary(), caption_justify="left"
        )
        table.add_column("trial", justify="right")
        for name in self._names:
            table.add_column(name.replace("_", " "), justify="right")
        table.add_column("examples", justify="right")
        table.add_column("validation loss", justify="right")
        table.add_column("state")
        standings = list(self._standings())
        best = best_of(standings)
        for standing in standings[-_ROWS_SHOWN:]:
            self._add(table, standing, leads=standing is best)
        return table

    def _add(self, table: Table, standing: Standing, *, leads: bool) -> None:
        live = self._latest.get(standing.trial.id)
        seen = max(standing.reached, live.examples_seen if live else 0)
        loss = f"{standing.loss:.4f}" if standing.values else "-"
        state = (
            f"{standing.state} · train {live.train_loss:.2f}"
            if live and standing.state == "running"
            else standing.state
        )
        style = (
            "bold green" if leads else "dim" if standing.state in ("pruned", "diverged", "failed") else None
        )
        values = parameters_of(standing, self._names).values()
        table.add_row(standing.trial.id, *values, str(seen), loss, state, style=style)


def best_of(standings: Sequence[Standing]) -> Standing | None:
    """The lowest loss at the highest rung that any trial has reached."""
    top = max((s.reached for s in standings), default=0)
    return min((s for s in standings if top in s.values), key=lambda s: s.values[top], default=None)


def parameters_of(standing: Standing, names: Sequence[str]) -> Mapping[str, str]:
    """Searched values as people write them."""
    fields = asdict(standing.trial.recipe)
    return {name: short(fields[name]) for name in names}


def short(value: object) -> str:
    """Three significant digits for floats, everything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
