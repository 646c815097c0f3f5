"""Tokens that schedulers and samplers need to find a good configuration, on recorded learning curves.

    python benchmarks/search_replay.py

Replays the table of `record_curves.py` through the real study, schedulers and samplers, by default 20
seeds each. Writes `results/search_replay.json`; some minutes on one core. The table must hold a whole
grid, which is the search space.

Regret: a person who stops the search takes the trial with the best loss at the highest rung that any
trial has reached; its loss at the horizon, above the best of the table, relative to that.

Cost: tokens trained and tokens read in evaluations, one as dear as the other, in full runs (one
configuration to the horizon, evaluated once). Numbers are medians over the seeds, a search that never
gets there counting as infinitely dear. Where several jobs run side by side, they end in the order of
their tokens.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from sweep.backends.simulated import Simulated
from sweep.search.loop import search
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha, Full, Scheduler, TopK
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.targets import Target, read_target
from sweep.types import Capacity, Job, Progress, Recipe, Report, Source, View

FOLDER = Path(__file__).parent
TABLE = FOLDER / "data" / "curves.json.gz"
RESULTS = FOLDER / "results" / "search_replay.json"
SEEDS = 20
# A Gaussian process takes seconds for a search of 32 trials, and 4 times as long for 64.
GP_SEEDS = 5
# Trials, and jobs side by side.
SETTINGS = ((32, 1), (64, 1), (64, 8))
GP_SETTINGS = ((32, 1),)
LIMITS = {"1%": 0.01, "0.2%": 0.002}
BUDGETS = (2, 4, 8, 16, 32)
REFERENCE = "tpe+full"
CONFIGURED = "tpe+asha eta 3 rungs 4"
GOAL = 1 / 3
RESAMPLES = 2000
DEFAULT = {"learning_rate": 3e-4, "batch_size": 8, "lora_rank": 16, "weight_decay": 0.0}


class Method(NamedTuple):
    """A sampler, by its file of `conf/sampler`, and a scheduler."""

    name: str
    sampler: str
    scheduler: Scheduler


class Moment(NamedTuple):
    """What was so after a report.

    spent: tokens of all slots. clock: tokens that a slot without a pause would have spent.
    """

    spent: float
    clock: float
    regret: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One configuration's losses and tokens trained by examples; the tokens at which it diverged."""

    losses: Mapping[int, float]
    tokens: Mapping[int, int]
    diverged: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The recorded curves of a grid. curves: by the values of the grid's fields, in its order."""

    grid: Mapping[str, Sequence[float]]
    recipe: Recipe
    horizon: int
    evaluation_tokens: int
    curves: Mapping[tuple[float, ...], Curve]

    def curve(self, recipe: Recipe) -> Curve:
        """The curve of a recipe of the grid."""
        return self.curves[tuple(getattr(recipe, name) for name in self.grid)]

    def regret(self, recipe: Recipe) -> float:
        """How far its loss at the horizon lies above the best, relative to that; infinite if it has none."""
        return self.curve(recipe).losses.get(self.horizon, math.inf) / self.best - 1

    @functools.cached_property
    def best(self) -> float:
        """The lowest loss at the horizon."""
        return min(curve.losses.get(self.horizon, math.inf) for curve in self.curves.values())

    @functools.cached_property
    def full_run(self) -> float:
        """Tokens of one configuration to the horizon, with one evaluation."""
        whole = (curve.tokens[self.horizon] for curve in self.curves.values() if not curve.diverged)
        return next(whole) + self.evaluation_tokens

    @property
    def defaults(self) -> Recipe:
        """Trial 0: the values of the grid nearest to those that a person would begin with."""
        nearest = {
            name: min(values, key=lambda value, name=name: abs(value - DEFAULT[name]))
            for name, values in self.grid.items()
        }
        return replace(self.recipe, **nearest)  # type: ignore[arg-type]


class Replay:
    """An engine that trains nothing: a job's report is what the table recorded. One serves all workers.

    Nothing is written for a trial between its rungs, so the study lets every job start at 0; what a trial
    has trained already is remembered here.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._trained: dict[str, int] = {}

    def run(self, source: Source) -> Iterator[Progress | Report]:
        while isinstance(job := source.next(Capacity()), Job):
            yield self._report(job)

    def close(self) -> None:
        """Nothing is held."""

    def tokens(self, job: Job) -> int:
        """That its report comes after."""
        before = self._trained.get(job.trial.id, 0)
        return self._end(job)[1] - before

    def examples(self, job: Job) -> int:
        """That it has seen then."""
        return self._end(job)[0]

    def _end(self, job: Job) -> tuple[int, int]:
        """Examples that it sees, and tokens since its trial's beginning."""
        curve = self._table.curve(job.trial.recipe)
        if job.stop in curve.losses:
            return job.stop, curve.tokens[job.stop] + self._table.evaluation_tokens
        assert curve.diverged is not None, f"the table has no point at {job.stop} examples"
        return curve.diverged

    def _report(self, job: Job) -> Report:
        curve, tokens = self._table.curve(job.trial.recipe), self.tokens(job)
        examples, reached = self.examples(job), job.stop in curve.losses
        if reached:
            self._trained[job.trial.id] = curve.tokens[job.stop]
        return Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=examples,
            state="reached" if reached else "diverged",
            validation_loss=curve.losses.get(job.stop),
            tokens=tokens,
            error=None if reached else f"recorded as diverged after {examples} examples",
        )


class Trace:
    """An observer that notes the incumbent's regret after every report.

    The workers of `backend` take a token of each job at a time, `tokens` of it until it reports.
    """

    def __init__(self, table: Table, study: Study, *, slots: int) -> None:
        self._table, self._study, self._engine = table, study, Replay(table)
        self.backend = Simulated(
            make_engine=lambda: self._engine, workers=slots, seconds=self._begin, clock=lambda: 0.0
        )
        # By rung: the lowest loss and whose it is.
        self._best: dict[int, tuple[float, str]] = {}
        self._begun: dict[str, float] = {}
        self._finished = 0.0
        self.moments: list[Moment] = []

    def log(self, event: Progress | Report) -> None:
        assert isinstance(event, Report)
        if event.validation_loss is not None:
            rung, found = event.examples_seen, (event.validation_loss, event.trial)
            self._best[rung] = min(found, self._best.get(rung, found))
        now = self.backend.now
        self._finished += now - self._begun.pop(event.job)
        spent = self._finished + sum(now - begun for begun in self._begun.values())
        self.moments.append(Moment(spent, now, self._regret()))

    def _begin(self, job: Job) -> float:
        """Tokens until it would have reached its stop, were it to diverge on its way."""
        self._begun[job.id] = self.backend.now
        return self._engine.tokens(job) * job.stop / self._engine.examples(job)

    def _regret(self) -> float:
        if not self._best:
            return math.inf
        incumbent = self._best[max(self._best)][1]
        return self._table.regret(self._study.standing(incumbent).trial.recipe)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How one search went."""

    moments: Sequence[Moment]
    distinct: int

    def until(self, limit: float) -> Moment | None:
        """The moment from which on the regret stays below the limit."""
        late = [number for number, moment in enumerate(self.moments) if moment.regret >= limit]
        first = late[-1] + 1 if late else 0
        return self.moments[first] if first < len(self.moments) else None

    def regret_at(self, spent: float) -> float:
        """The regret of who stops after so many tokens, infinite before the first report."""
        return next((m.regret for m in reversed(self.moments) if m.spent <= spent), math.inf)


def read_table(path: Path) -> Table:
    """The table that `record_curves.py` wrote. Exits where the grid is not whole."""
    kept = json.loads(gzip.decompress(path.read_bytes()))
    points, grid = kept["points"], kept["grid"]
    curves = {
        tuple(row[name] for name in grid): Curve(
            losses=dict(zip(points, row["losses"], strict=False)),
            tokens=dict(zip(points, row["tokens"], strict=False)),
            diverged=row["diverged"] and tuple(row["diverged"]),
        )
        for row in kept["configurations"]
    }
    wanted = math.prod(len(values) for values in grid.values())
    if len(curves) != wanted:
        raise SystemExit(f"{path} holds {len(curves)} of {wanted} configurations. Record the whole grid.")
    return Table(
        grid=grid,
        recipe=Recipe(**kept["recipe"]),
        horizon=kept["horizon"],
        evaluation_tokens=kept["evaluation_tokens"],
        curves=curves,
    )


@functools.cache
def configured(name: str) -> Target:
    """What a file of `conf/` names."""
    return read_target(yaml.safe_load((FOLDER.parent / "conf" / f"{name}.yaml").read_text()), name)


def methods(table: Table, unit: int) -> list[Method]:
    """What is compared. A short horizon gives two numbers of rungs the same ladder: then the smaller one."""
    found = [Method(f"{sampler}+full", sampler, Full()) for sampler in ("random", "tpe", "gp")]
    found.append(Method("tpe+median", "tpe", configured("scheduler/median").build()))
    for sampler in ("random", "tpe"):
        seen = set()
        for eta, rungs in ((2, 3), (2, 4), *itertools.product((3, 4), (2, 3, 4))):
            halving = Asha(eta=eta, rungs=rungs)
            ladder = (eta, halving.ladder(table.horizon, unit))
            if ladder not in seen:
                found.append(Method(f"{sampler}+asha eta {eta} rungs {rungs}", sampler, halving))
            seen.add(ladder)
        for share, k in itertools.product((0.333, 0.111), (1, 3, 5)):
            name = f"{sampler}+one_epoch 1/{round(1 / share)} k {k}"
            found.append(Method(name, sampler, TopK(k=k, first_share=share)))
    return found


def plan(table: Table, *, seed: int, trials: int) -> Plan:
    """A study over the table's grid with the table's horizon."""
    return Plan(
        name="replay",
        space=Space.from_mapping({name: {"choices": list(values)} for name, values in table.grid.items()}),
        defaults=table.defaults,
        seed=seed,
        base="recorded",
        trials=trials,
        train_rows=table.horizon,
        evaluation=View("validation"),
        fingerprint={},
    )


def searched(table: Table, method: Method, *, seed: int, trials: int, slots: int) -> Search:
    """One search from its first trial to its end."""

    def sampler(draw: int) -> BaseSampler:
        return configured(f"sampler/{method.sampler}").build(seed=draw)

    study = Study(
        plan(table, seed=seed, trials=trials),
        storage=InMemoryStorage(),
        sampler=sampler,
        scheduler=method.scheduler,
        clock=lambda: 0.0,
    )
    trace = Trace(table, study, slots=slots)
    search(study, trace.backend, [trace])
    recipes = {standing.trial.recipe for standing in study.standings}
    return Search(moments=trace.moments, distinct=len(recipes))


def quantile(values: Sequence[float], share: float) -> float:
    """Between the two nearest values, infinite if the farther one is."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above] or position == below:
        return ordered[below]
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratio_range(costs: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """95% of the ratios of medians when the seeds, which both share, are drawn again and again."""
    draws = np.random.default_rng(0).integers(len(costs), size=(RESAMPLES, len(costs)))
    ratios = sorted(
        ratio(quantile([costs[i] for i in draw], 0.5), quantile([reference[i] for i in draw], 0.5))
        for draw in draws
    )
    return ratios[round(0.025 * RESAMPLES)], ratios[round(0.975 * RESAMPLES) - 1]


def ratio(cost: float, reference: float) -> float:
    """Infinite where the cost is, even if the reference is too; 0 where only the reference is."""
    return math.inf if math.isinf(cost) else cost / reference


def cost(
    table: Table, searches: Sequence[Search], reference: Sequence[Search], limit: float
) -> dict[str, Any]:
    """Full runs until the regret stays below the limit, and their ratio to those of the reference."""

    def taken(those: Sequence[Search]) -> list[float]:
        moments = [search.until(limit) for search in those]
        return [math.inf if moment is None else moment.spent / table.full_run for moment in moments]

    own, against = taken(searches), taken(reference)
    return {
        "median": quantile(own, 0.5),
        "quartiles": [quantile(own, 0.25), quantile(own, 0.75)],
        "never": sum(map(math.isinf, own)),
        "ratio": ratio(quantile(own, 0.5), quantile(against, 0.5)),
        "ratio_range": ratio_range(own, against),
    }


def row(table: Table, searches: Sequence[Search], reference: Sequence[Search]) -> dict[str, Any]:
    """What the searches of one method cost and found, against those of the reference with the same seeds."""
    reference = reference[: len(searches)]
    found: dict[str, Any] = {"searches": len(searches)}
    for name, limit in LIMITS.items():
        found[f"full_runs_to_{name}"] = cost(table, searches, reference, limit)
    arrivals = [search.until(LIMITS["1%"]) for search in searches]
    clocks = [math.inf if moment is None else moment.clock for moment in arrivals]
    found["clock_full_runs_to_1%"] = quantile(clocks, 0.5) / table.full_run
    found["regret_after_full_runs"] = {
        str(budget): quantile([search.regret_at(budget * table.full_run) for search in searches], 0.5)
        for budget in BUDGETS
    }
    last = [search.moments[-1] for search in searches]
    found["full_runs_in_all"] = quantile([moment.spent for moment in last], 0.5) / table.full_run
    found["regret_at_end"] = quantile([moment.regret for moment in last], 0.5)
    found["distinct_configurations"] = quantile([search.distinct for search in searches], 0.5)
    return found


def compare(table: Table, seeds: int) -> list[dict[str, Any]]:
    """A row per method, number of trials and number of slots."""
    rows = []
    for trials, slots in SETTINGS:
        searches = {}
        for method in methods(table, plan(table, seed=0, trials=trials).unit):
            if method.sampler == "gp" and (trials, slots) not in GP_SETTINGS:
                continue
            count = min(seeds, GP_SEEDS) if method.sampler == "gp" else seeds
            searches[method.name] = [
                searched(table, method, seed=seed, trials=trials, slots=slots) for seed in range(count)
            ]
        reference = searches[REFERENCE]
        for name, found in searches.items():
            rows.append({"method": name, "trials": trials, "slots": slots, **row(table, found, reference)})
    return rows


def table_facts(table: Table) -> dict[str, Any]:
    """What a reader must know of the table to judge the regrets."""
    recipes = [replace(table.recipe, **dict(zip(table.grid, values, strict=True))) for values in table.curves]  # type: ignore[arg-type]
    regrets = [table.regret(recipe) for recipe in recipes]
    return {
        "configurations": len(regrets),
        "tokens_of_full_run": table.full_run,
        "of_which_evaluation": table.evaluation_tokens,
        "diverged": sum(curve.diverged is not None for curve in table.curves.values()),
        "best_loss": table.best,
        "regret_of_defaults": table.regret(table.defaults),
        "median_regret": quantile(regrets, 0.5),
        **{f"within_{name}": sum(regret < limit for regret in regrets) for name, limit in LIMITS.items()},
    }


def chosen(rows: Sequence[dict[str, Any]], trials: int, slots: int) -> list[dict[str, Any]]:
    """The rows of one setting, cheapest first."""
    found = [row for row in rows if (row["trials"], row["slots"]) == (trials, slots)]
    return sorted(found, key=lambda row: [row[f"full_runs_to_{name}"]["median"] for name in LIMITS])


def ranking(rows: Sequence[dict[str, Any]]) -> list[tuple[float, str]]:
    """Mean rank by median cost over settings and limits, best first; of methods that ran in each setting."""
    names = [row["method"] for row in rows]
    ranks: dict[str, list[float]] = {name: [] for name in names if names.count(name) == len(SETTINGS)}
    for (trials, slots), limit in itertools.product(SETTINGS, LIMITS):
        medians = {
            row["method"]: row[f"full_runs_to_{limit}"]["median"]
            for row in chosen(rows, trials, slots)
            if row["method"] in ranks
        }
        for name, own in medians.items():
            cheaper = sum(other < own for other in medians.values())
            as_dear = sum(other == own for other in medians.values())
            ranks[name].append(cheaper + (as_dear + 1) / 2)
    return sorted((float(np.mean(places)), name) for name, places in ranks.items())


def reaches_goal(row: dict[str, Any]) -> str:
    """Whether the method needs at most a third of the reference's tokens, in a sentence."""
    needed = row["full_runs_to_1%"]
    low, high = needed["ratio_range"]
    return (
        f"{row['method']}, {row['trials']} trials, {row['slots']} slots: 1% in {needed['ratio']:.2f} "
        f"({low:.2f} to {high:.2f}) of the tokens of {REFERENCE}; "
        f"at most a third: {'yes' if needed['ratio'] <= GOAL else 'no'}."
    )


def answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which method wins, whether it and the configured one reach the goal, and what loses, in sentences."""
    places = ranking(rows)
    best = ", then ".join(f"{name} ({place:.1f})" for place, name in places[:5])
    lines = [f"Cheapest by mean rank over settings and limits: {best}."]
    for name in dict.fromkeys((places[0][1], CONFIGURED)):
        lines += [reaches_goal(row) for row in rows if row["method"] == name]
    for trials, slots in SETTINGS:
        dearer = [row for row in chosen(rows, trials, slots) if row["full_runs_to_1%"]["ratio"] > 1]
        names = ", ".join(row["method"] for row in dearer) or "none"
        lines.append(f"Dearer than {REFERENCE} to 1%, {trials} trials, {slots} slots: {names}.")
    return lines


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table per setting, cheapest first."""
    after = "".join(f"{budget:>6}" for budget in BUDGETS)
    for trials, slots in SETTINGS:
        print(
            f"\n{trials} trials, {slots} slots: full runs until the regret stays below a limit, median "
            f"(quartiles) and searches that never get there; their ratio to {REFERENCE};\n"
            "regret in percent after so many full runs; full runs and regret at the end"
        )
        print(f"{'':<27}{'1%':<27}{'ratio':<7}{'0.2%':<27}{'ratio':<7}{after}{'end':>13}")
        for row in chosen(rows, trials, slots):
            print(_line(row))


def _line(row: dict[str, Any]) -> str:
    line = f"{row['method']:<27}"
    for name in LIMITS:
        needed = row[f"full_runs_to_{name}"]
        low, high = needed["quartiles"]
        median = f"{needed['median']:.1f} ({low:.1f} {high:.1f}) {needed['never']}/{row['searches']}"
        line += f"{median:<27}{needed['ratio']:<7.2f}"
    line += "".join(f"{100 * regret:>6.2f}" for regret in row["regret_after_full_runs"].values())
    return f"{line}{row['full_runs_in_all']:>7.1f}{100 * row['regret_at_end']:>6.2f}"


def finite(node: Any) -> Any:
    """The same for JSON: null in place of infinite, five decimals."""
    if isinstance(node, dict):
        return {key: finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    if isinstance(node, float):
        return None if math.isinf(node) else round(node, 5)
    return node


def write(path: Path, facts: Mapping[str, object], rows: Sequence[dict[str, Any]]) -> None:
    """All of it as JSON, a line per row."""
    lines = ",\n".join(json.dumps(finite(row)) for row in rows)
    head = json.dumps({**finite(facts), "answers": answers(rows)}, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "rows": [\n{lines}\n]}}\n')


def main() -> None:
    """Replay, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, default=TABLE, help="curves to replay")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each method")
    options = parser.parse_args()
    table = read_table(options.table)
    facts = table_facts(table)
    print(facts)
    rows = compare(table, options.seeds)
    show(rows)
    print()
    for line in answers(rows):
        print(line)
    write(options.results, {"table": facts, "seeds": options.seeds}, rows)


if __name__ == "__main__":
    main()
