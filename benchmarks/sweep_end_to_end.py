"""Seconds and training tokens of a whole search until its best trial is nearly the best that anyone found.

    python benchmarks/sweep_end_to_end.py [--model tiny|135m] [--seeds 2] [--quick]

Incumbent: the trial with the lowest validation loss among those that were trained to the horizon. A search
has arrived when its incumbent is within 1% of the best that any method found with the same seed; as that
is much of what a random model learns, within 0.2% too. Every method has the same rows in the same order,
space, number of trials, trial 0 and 24 validation rows at each rung; its clock starts before its model is
loaded and leaves out imports. By hand: HF Trainer and PEFT on a base loaded once (`trainer.py`), Optuna's
own defaults. Tokens: trained, prompts included; those read in evaluations stand beside them. Medians over
seeds; a search that never arrives counts as infinitely long.

Writes `results/sweep_end_to_end.json` with every change of an incumbent, each model by itself. tiny takes
some eight minutes on two cores, 135m about forty with one seed. `--quick` runs tiny with few trials and
writes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jobs import RECIPE, RESULTS, SMOLLM2, TINY, machine, require_packing, shipped_rows
from sweep.backends.inline import Inline
from sweep.data.encode import encode
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import ModelSource
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.search.loop import search
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha, Full, Scheduler, TopK
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.types import Engine, Progress, Recipe, Report, View
from trainer import Work, adapted, features, in_order, trainer_for

LIMITS = {"1%": 0.01, "0.2%": 0.002}
SHOWN = ("seconds", "tokens")
EVALUATION = View("validation", 24)
RANKS = (4, 8, 16, 64)
# The shipped configuration's.
DEFAULTS = dataclasses.replace(RECIPE, learning_rate=3e-4, warmup_fraction=0.1)
HALVING = Asha(eta=3, rungs=4)
TOP = TopK(k=3, first_share=0.333)
PASS_TOKENS = 16384 if torch.cuda.is_available() else 1024
TOLD = RESULTS / "sweep_end_to_end.json"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is searched. horizon: examples of a full trial. batches: to choose from."""

    model: ModelSource
    max_tokens: int
    horizon: int
    trials: int
    batches: Sequence[int]
    seeds: int

    @property
    def unit(self) -> int:
        """Rungs are multiples of it."""
        return max(self.batches)


TASKS = {
    "tiny": Task(model=TINY, max_tokens=96, horizon=384, trials=32, batches=(4, 8, 16, 32), seeds=2),
    # Of 64 examples a batch of 32 would leave no rung but the last.
    "135m": Task(model=SMOLLM2, max_tokens=256, horizon=64, trials=12, batches=(4, 8, 16), seeds=1),
}
QUICK = dataclasses.replace(TASKS["tiny"], horizon=96, trials=4, seeds=1)


class Change(NamedTuple):
    """A new incumbent, and what had been spent by then."""

    seconds: float
    tokens: int
    evaluation_tokens: int
    loss: float


@dataclass
class Trace:
    """What a search has spent and found since it was made."""

    horizon: int
    evaluation_tokens_each: int
    begun: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    evaluation_tokens: int = 0
    changes: list[Change] = field(default_factory=list)

    def scored(self, examples: int, loss: float | None) -> None:
        """Take in that a trial was evaluated after so many examples; None if it has no loss."""
        self.evaluation_tokens += self.evaluation_tokens_each
        if examples < self.horizon or loss is None or not math.isfinite(loss):
            return
        if not self.changes or loss < self.changes[-1].loss:
            self.changes.append(Change(self.seconds, self.tokens, self.evaluation_tokens, loss))

    def log(self, event: Progress | Report) -> None:
        """What an observer of a search hears."""
        if isinstance(event, Progress):
            self.tokens += event.tokens
        else:
            self.scored(event.examples_seen, event.validation_loss)

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self.begun


# Ours


def ours(task: Task, data: DataSet, seed: int, trace: Trace, *, scheduler: Scheduler, packed: bool) -> None:
    """The study, its sampler as it is shipped, and an engine."""

    def sampler(drawn: int) -> BaseSampler:
        return TPESampler(seed=drawn, n_startup_trials=6, group=True)

    plan = Plan(
        name="search",
        space=Space.from_mapping(
            {
                "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "batch_size": {"choices": list(task.batches)},
                "lora_rank": {"choices": list(RANKS)},
                "weight_decay": {"low": 0.0, "high": 0.1},
            }
        ),
        defaults=DEFAULTS,
        seed=seed,
        base=task.model.identity,
        trials=task.trials,
        train_rows=task.horizon,
        evaluation=EVALUATION,
        fingerprint={},
    )
    study = Study(plan, storage=InMemoryStorage(), sampler=sampler, scheduler=scheduler)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(model=task.model, data=data, max_tokens=task.max_tokens, folder=Path(folder))

        def make_engine() -> Engine:
            if packed:
                return Packed(inputs=inputs, slots=None, tokens=PASS_TOKENS)
            return Solo(inputs=inputs, micro_batch=8)

        backend = Inline(make_engine=make_engine)
        search(study, backend, [trace])
        backend.close()


# By hand


class AtRungs(TrainerCallback):
    """Evaluates at the rungs and goes on as long as `hear`, told examples and loss, says so."""

    def __init__(self, work: Work, rungs: Sequence[int], hear: Callable[[int, float], bool]) -> None:
        self._work, self._rungs, self._hear = work, rungs, hear

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        seen = state.global_step * self._work.recipe.batch_size
        control.should_evaluate = seen in self._rungs
        if seen == self._work.stop:
            control.should_training_stop = True
            # Who stops before the end of the schedule wants to go on.
            control.should_save = seen < len(self._work.features)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        assert metrics is not None
        if not self._hear(state.global_step * self._work.recipe.batch_size, metrics["eval_loss"]):
            control.should_training_stop = True


class ByHand:
    """Trainer and PEFT on a base model that is loaded once."""

    def __init__(self, task: Task, data: DataSet, seed: int, trace: Trace, folder: Path) -> None:
        self._base = task.model.load()
        train, validation = (
            features(encode(data.examples[split], self._base.tokenizer, max_tokens=task.max_tokens))
            for split in ("train", "validation")
        )
        self._rows = in_order(train, seed, task.horizon)
        self._evaluation = validation[: EVALUATION.rows]
        self._seed, self._trace, self._folder = seed, trace, folder

    def train(
        self,
        number: int,
        recipe: Recipe,
        rungs: Sequence[int],
        *,
        start: int = 0,
        keeps: Callable[[int, float], bool] = lambda examples, loss: True,
    ) -> float:
        """The loss at the last rung that the trial came to, from its checkpoint at `start` on."""
        found, reached = math.nan, start

        def hear(examples: int, loss: float) -> bool:
            nonlocal found, reached
            self._trace.tokens += sum(len(row["input_ids"]) for row in self._rows[reached:examples])
            self._trace.scored(examples, loss)
            found, reached = loss, examples
            return keeps(examples, loss)

        folder = self._folder / str(number)
        work = Work(
            recipe=recipe,
            seed=self._seed,
            features=self._rows,
            stop=rungs[-1],
            evaluation=self._evaluation,
        )
        state = str(folder / f"checkpoint-{start // recipe.batch_size}") if start else None
        with adapted(self._base, recipe, self._seed) as model:
            trainer = trainer_for(model, self._base.tokenizer, work, folder, [AtRungs(work, rungs, hear)])
            trainer.train(resume_from_checkpoint=state)
        return found


def suggested(trial: optuna.Trial, task: Task) -> Recipe:
    """A recipe of the space."""
    return dataclasses.replace(
        DEFAULTS,
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        batch_size=trial.suggest_categorical("batch_size", task.batches),
        lora_rank=trial.suggest_categorical("lora_rank", RANKS),
        weight_decay=trial.suggest_float("weight_decay", 0.0, 0.1),
    )


def study_by_hand(sampler: BaseSampler, **more: Any) -> optuna.Study:
    """Optuna's own study, which begins with trial 0."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler, **more)
    names = ("learning_rate", "batch_size", "lora_rank", "weight_decay")
    study.enqueue_trial({name: getattr(DEFAULTS, name) for name in names})
    return study


def by_optuna(task: Task, hand: ByHand, seed: int) -> None:
    """TPE and median pruning at the rungs of our halving."""

    def objective(trial: optuna.Trial) -> float:
        rungs = HALVING.ladder(task.horizon, task.unit)

        def keeps(examples: int, loss: float) -> bool:
            trial.report(loss, examples)
            return not trial.should_prune()

        loss = hand.train(trial.number, suggested(trial, task), rungs, keeps=keeps)
        if trial.should_prune():
            raise optuna.TrialPruned
        return loss

    study = study_by_hand(TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=task.trials)


def by_random(task: Task, hand: ByHand, seed: int) -> None:
    """Random draws, every one to the end."""
    study = study_by_hand(RandomSampler(seed=seed))
    study.optimize(
        lambda trial: hand.train(trial.number, suggested(trial, task), (task.horizon,)), n_trials=task.trials
    )


def by_top(task: Task, hand: ByHand, seed: int) -> None:
    """Random draws, all to a third, the best three from their checkpoints to the end."""
    study = study_by_hand(RandomSampler(seed=seed))
    first, *rest = TOP.ladder(task.horizon, task.unit)
    drawn = [suggested(study.ask(), task) for _ in range(task.trials)]
    losses = [hand.train(number, recipe, (first,)) for number, recipe in enumerate(drawn)]
    # A loss that is no number comes last.
    order = sorted(range(task.trials), key=lambda number: (math.isnan(losses[number]), losses[number]))
    for number in order[: TOP.k] if rest else ():
        hand.train(number, drawn[number], rest, start=first)


OURS: Mapping[str, tuple[Scheduler, bool]] = {
    "packed, halving, TPE": (HALVING, True),
    "solo, halving, TPE": (HALVING, False),
    "packed, all to the end, TPE": (Full(), True),
}
BY_HAND: Mapping[str, Callable[[Task, ByHand, int], None]] = {
    "Trainer, Optuna TPE, median": by_optuna,
    "Trainer, random, all to the end": by_random,
    "Trainer, random, a third then top 3": by_top,
}


# What comes out


def searched(method: str, task: Task, data: DataSet, seed: int, evaluation_tokens: int) -> dict[str, Any]:
    """One search."""
    trace = Trace(task.horizon, evaluation_tokens)
    if method in OURS:
        scheduler, packed = OURS[method]
        ours(task, data, seed, trace, scheduler=scheduler, packed=packed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            BY_HAND[method](task, ByHand(task, data, seed, trace, Path(folder)), seed)
    spent = {"seconds": trace.seconds, "tokens": trace.tokens, "evaluation_tokens": trace.evaluation_tokens}
    return {
        "method": method,
        "seed": seed,
        **spent,
        "changes": [change._asdict() for change in trace.changes],
    }


def measure(task: Task, names: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Every method with every seed, with what it took to arrive."""
    data = shipped_rows()
    examples = data.examples[EVALUATION.split][: EVALUATION.rows]
    rows = encode(examples, task.model.load().tokenizer, max_tokens=task.max_tokens)
    each = sum(len(row.input_ids) for row in rows)
    runs = []
    for seed in range(seeds):
        # Another order with each seed, so that no method has the machine at its best each time.
        turn = seed % len(names)
        found = []
        for name in (*names[turn:], *names[:turn]):
            found.append(searched(name, task, data, seed, each))
            print(f"seed {seed} {name}: {found[-1]['seconds']:.1f} s", flush=True)
        best = min(change["loss"] for run in found for change in run["changes"])
        for run in found:
            run["loss"] = run["changes"][-1]["loss"] if run["changes"] else None
            run["arrived"] = {
                name: next(
                    (change for change in run["changes"] if change["loss"] <= (1 + share) * best), None
                )
                for name, share in LIMITS.items()
            }
            print(line_of(run, best), flush=True)
        runs += found
    return runs


def line_of(run: Mapping[str, Any], best: float) -> str:
    """A search in a line."""
    when = ", ".join(
        f"{name} after {change['seconds']:.1f} s and {change['tokens']:,} tokens"
        for name, change in run["arrived"].items()
        if change
    )
    above = f"{100 * (run['loss'] / best - 1):.2f}% above the best" if run["loss"] else "no full trial"
    return (
        f"seed {run['seed']} {run['method']:<38}{above} after {run['seconds']:.1f} s; {when or 'never near'}"
    )


def medians(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per method; None stands for infinite."""
    rows = []
    for method in names:
        own = [run for run in runs if run["method"] == method]
        row: dict[str, Any] = {"method": method, "searches": len(own)}
        for unit in ("seconds", "tokens", "evaluation_tokens"):
            for name in LIMITS:
                arrived = [run["arrived"][name] for run in own]
                spent = [math.inf if change is None else change[unit] for change in arrived]
                row[f"{unit}_to_{name}"] = _finite(statistics.median(spent))
            row[f"{unit}_in_all"] = _finite(statistics.median(run[unit] for run in own))
        rows.append(row)
    return rows


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table; ratios are to ours, the first row, and below 1 where ours loses."""
    first = rows[0]
    units = [f"{unit}_{end}" for end in (*(f"to_{name}" for name in LIMITS), "in_all") for unit in SHOWN]
    print(
        f"\n{'median (ratio to the first)':<38}" + "".join(f"{unit.replace('_', ' '):>20}" for unit in units)
    )
    for row in rows:
        text = f"{row['method']:<38}"
        for unit in units:
            own, reference = row[unit], first[unit]
            ratio = f" ({own / reference:.2f})" if own is not None and reference else ""
            digits = 1 if unit.startswith("seconds") else 0
            text += f"{'never' if own is None else f'{own:,.{digits}f}{ratio}':>20}"
        print(text)


def write(path: Path, name: str, task: Task, found: Mapping[str, Any]) -> None:
    """Put this model's searches into the file; others stay."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    given = {**asdict(task), "model": task.model.identity, "rungs": HALVING.ladder(task.horizon, task.unit)}
    kept[name] = {"machine": machine(), "task": given, "pass_tokens": PASS_TOKENS, "limits": LIMITS, **found}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Search, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(TASKS), default="tiny", help="what is trained")
    parser.add_argument("--seeds", type=int, help="searches of each method")
    parser.add_argument("--quick", action="store_true", help="four short trials, printed and not written")
    parser.add_argument("--results", type=Path, default=TOLD, help="the file to write")
    options = parser.parse_args()
    require_packing()
    task = QUICK if options.quick else TASKS[options.model]
    names = [*OURS, *BY_HAND]
    runs = measure(task, names, options.seeds or task.seeds)
    rows = medians(runs, names)
    show(rows)
    if not options.quick:
        write(options.results, options.model, task, {"methods": rows, "searches": runs})


if __name__ == "__main__":
    main()
