"""The nouns of a sweep: frozen, picklable, free of torch, Optuna, MLflow and Hydra.

A `Trial` is one `Recipe` to be judged. It advances in `Job`s, each from one rung to the next. A
worker's engine answers a job with `Progress` while it trains and one `Report` when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, cast

Schedule = Literal["constant", "linear", "cosine", "wsd"]
# "general" is no part of the data: text that has nothing to do with it, which the product ships.
Split = Literal["train", "validation", "confirm", "test", "golden", "general"]
ReportState = Literal["reached", "stopped", "broken", "diverged", "infeasible", "failed"]
TrialState = Literal["running", "paused", "complete", "pruned", "diverged", "infeasible", "failed"]
Severity = Literal["warn", "error"]
# What to do with a sweep's winner.
Decision = Literal["ship", "no_evidence", "use_baseline"]

SPLITS: tuple[Split, ...] = ("train", "validation", "confirm", "test", "golden")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every hyperparameter of one training run, concrete.

    learning_rate: peak, of AdamW. batch_size: examples per optimiser step, whatever fits in
    memory at once. weight_decay: decoupled. lora_alpha: the update's scale is alpha / rank, or
    alpha / sqrt(rank) with `rslora`. target_modules: "all-linear" or names of linear layers.
    warmup_fraction: share of the steps, 0 to 1. epochs: passes over the train split, may be a
    fraction. max_gradient_norm: clipping threshold. lora_plus_ratio: B learns at so many times the
    rate of A, 1 for plain LoRA (LoRA+, arXiv:2402.12354). dora: magnitude and direction are learned
    apart (DoRA, arXiv:2402.09353). These two have a default, since trials kept earlier lack them.
    """

    learning_rate: float
    batch_size: int
    weight_decay: float
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    target_modules: str | tuple[str, ...]
    rslora: bool
    warmup_fraction: float
    schedule: Schedule
    epochs: float
    max_gradient_norm: float
    lora_plus_ratio: float = 1.0
    dora: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One recipe to be judged. `number` is Optuna's, None for trials outside the search.

    id: "12", or "12/seed2", "train" and the like outside the search. base: the base model's name.
    """

    id: str
    number: int | None
    recipe: Recipe
    seed: int
    base: str


class View(NamedTuple):
    """The first `rows` rows of a split, or all. A name: workers hold the rows, jobs only point at them.

    fold: of a cross-validation, from 0 on: "validation" is that fold of the train split, "train" the others.
    """

    split: Split
    rows: int | None = None
    fold: int | None = None

    @property
    def home(self) -> Split:
        """The split that holds its rows."""
        return self.split if self.fold is None else "train"


class Prompt(NamedTuple):
    """What a model is to answer for a row. turns: (role, content) of each, the last one the user's."""

    row: str
    turns: tuple[tuple[str, str], ...]


class Reply(NamedTuple):
    """What it answered, without special tokens.

    prompt_tokens, tokens: read and written. seconds: from when its prompt was read to its last token, in
    the batch that it was part of. ended: whether it came to its end of turn by itself.
    """

    row: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    ended: bool


class Asking(NamedTuple):
    """What an engine is to answer after a job's training: greedily, at most `max_tokens` new tokens each."""

    prompts: tuple[Prompt, ...]
    max_tokens: int


class Probe(NamedTuple):
    """Rows that show what a trial has learnt by heart: of the train split, and such as it never saw.

    train: as many rows as the view has, those that the job's trial saw first in its own order of the data;
    rows that it has not come to are no part of it. continued: of the first so many rows of each, the model
    continues the answer from its middle.
    """

    train: View
    held_out: View
    continued: int


class RowProbe(NamedTuple):
    """A row probed. nats, tokens: as in `RowLoss`.

    min_k: mean log-probability, in nats, of the least likely fifth of the response's tokens, one at least
    (arXiv:2310.16789); base_min_k: by the base model, before any training. verbatim: whether the greedy
    continuation from the middle of the answer repeats the row's own next tokens, 16 or as many as are left;
    None where it was not asked or fewer than 4 are left.
    """

    row: str
    split: Split
    nats: float
    tokens: int
    min_k: float
    base_min_k: float
    verbatim: bool | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Take `trial` from `start` to `stop` examples seen, then evaluate.

    The optimiser's schedule runs to `horizon`, wherever the job stops. `start == stop` only
    evaluates. `checkpoint` is the folder or URL that an earlier report gave, None at the beginning.
    `attempt` fences off a worker that was given up and comes back. asked, probe: what else is
    measured once the rung is reached.
    """

    id: str
    attempt: int
    trial: Trial
    start: int
    stop: int
    horizon: int
    checkpoint: str | None
    train: View
    evaluation: View
    asked: Asking | None = None
    probe: Probe | None = None

    @property
    def before(self) -> int:
        """Examples that the trial was trained on in its earlier folds; a job itself counts from 0 in each."""
        return self.horizon * (self.train.fold or 0)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One optimiser step of a running job. tokens: trained in this step, prompt included."""

    job: str
    trial: str
    examples_seen: int
    train_loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int


class RowLoss(NamedTuple):
    """Summed negative log-likelihood of one row's response, in nats, over `tokens` tokens."""

    row: str
    nats: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a job ended.

    validation_loss: nats per response token on the job's evaluation view. bits_per_byte: the same
    per byte of response text, which compares across tokenizers. rows: the losses behind both, in the
    view's order.
    replies: one for each prompt asked, in that order; probed: the probe's rows, trained ones first.
    ended_ms: wall clock since the epoch, for display only.
    checkpoint: where the state after `examples_seen` lies, None if there is none. error: the
    reason of any state but "reached", with what to do. "broken": the job's checkpoint is not whole, so
    nothing was trained; its trial goes on from an earlier one.
    """

    job: str
    trial: str
    attempt: int
    examples_seen: int
    state: ReportState
    validation_loss: float | None = None
    bits_per_byte: float | None = None
    train_loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[RowLoss, ...] = ()
    replies: tuple[Reply, ...] = ()
    probed: tuple[RowProbe, ...] = ()
    checkpoint: str | None = None
    seconds: float = 0.0
    tokens: int = 0
    peak_bytes: int = 0
    ended_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number about a model on some rows, with the standard error that its rows give it."""

    value: float
    standard_error: float
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a measured value must not pass: beyond `warn` it is told, beyond `error` it counts as failed.

    error: None where nothing is bad enough for that. The larger value is the worse one, unless the check says
    otherwise.
    """

    warn: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one check found. severity says what a failure means: read it, or stop."""

    check: str
    passed: bool
    severity: Severity
    value: float
    limit: float
    message: str


class Aimed(NamedTuple):
    """A trial's value by one of several aims. unit: what it is counted in."""

    aim: str
    value: float
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a trial of the search stands.

    reports: one per rung reached, oldest first, without rows; last, how it ended if it ended badly, or the
    state after an earlier rung, scored again, if that is the one that counts.
    state: "running" while a job is out, "paused" between rungs, otherwise final.
    verdicts: of the guards, on the state that counts, once it was probed. violation: how far beyond their
    error limits, as `constraints` gives it; above 0 the trial does not win while another may.
    folds: of a cross-validation, where each rung is a fold, a training of its own, and examples seen are
    those of all of them; after the folds' reports stands their mean. None: rungs of one training.
    aims: its values by several, in their order, once it reached its last rung; empty where the loss is the
    only one.
    """

    trial: Trial
    state: TrialState
    reports: tuple[Report, ...]
    reason: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    violation: float = 0.0
    folds: int | None = None
    aims: tuple[Aimed, ...] = ()

    @property
    def rungs(self) -> tuple[Report, ...]:
        """The reports by which it is compared on its way, one per rung with a loss."""
        first: dict[int, Report] = {}
        for report in self.reports:
            if report.validation_loss is not None:
                first.setdefault(report.examples_seen, report)
        return tuple(first.values())

    @property
    def values(self) -> dict[int, float]:
        """Validation loss by examples seen."""
        return {report.examples_seen: cast("float", report.validation_loss) for report in self.rungs}

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state not in ("running", "paused")

    @property
    def steps(self) -> dict[int, float]:
        """Validation loss by fold, from 1 on, or by examples seen: what compares between trials."""
        return self.values if self.folds is None else dict(enumerate(self.values.values(), start=1))

    @property
    def reached(self) -> int:
        """Examples seen at the last rung with a loss, 0 before the first."""
        return max(self.values, default=0)

    @property
    def loss(self) -> float:
        """Validation loss of the state that counts, or the folds' mean. Raises IndexError without any."""
        return [report.validation_loss for report in self.reports if report.validation_loss is not None][-1]

    @property
    def broken(self) -> tuple[str, ...]:
        """The guards that forbid it to win."""
        failed = (verdict for verdict in self.verdicts if not verdict.passed)
        return tuple(verdict.check for verdict in failed if verdict.severity == "error")


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """The configuration that production training reuses, and where it came from.

    horizon: examples that the schedule runs to, a multiple of `unit`, the largest batch of the search. stop:
    after how many of them the finalists' training stopped. validation: the winner's loss in the search.
    confirm, test: what the objective says of it on those splits, the mean of fresh seeds. default_confirm,
    default_test: the same of the recipe's own values, None where they did not come to their end. baselines:
    of what answers without training, on the confirm split. decision: what was made of all that.
    data_fingerprint: of the rows and their splits. git_commit: of the working directory. overrides: the
    sweep's command line, without secrets. folds: of the cross-validation that it was found by, whose pool of
    train and validation rows it is to be trained on; None: by a split.
    """

    recipe: Recipe
    model: Mapping[str, object]
    experiment: str
    study: str
    trial: int
    horizon: int
    stop: int
    unit: int
    seed: int
    data_fingerprint: str
    fingerprint: str
    validation: Score
    confirm: Score
    default_confirm: Score | None
    test: Score | None
    default_test: Score | None
    baselines: Mapping[str, Score]
    decision: Decision
    verdicts: tuple[Verdict, ...]
    git_commit: str | None
    mlflow_run: str | None
    overrides: tuple[str, ...]
    folds: int | None = None


class Wait(NamedTuple):
    """Nothing to hand out before another report comes in."""


class Done(NamedTuple):
    """Nothing to hand out any more."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a worker offers when it asks for work.

    bases: names of the base models already loaded. warm_trials: ids of the trials whose state is
    in this worker's memory.
    """

    worker: str = "inline"
    free_slots: int = 1
    devices: int = 1
    bases: frozenset[str] = frozenset()
    warm_trials: frozenset[str] = frozenset()


class Source(Protocol):
    """What a study shows to backends and engines, and their only way back to it.

    Each job is handed out once per attempt. A worker holding a job listed in `cancelled()` stops
    at its next step, keeps a checkpoint and reports "stopped".
    """

    def next(self, capacity: Capacity) -> Job | Wait | Done: ...

    def cancelled(self) -> frozenset[str]: ...


class Engine(Protocol):
    """Trains jobs inside one worker process.

    Pulls while it has room, yields `Progress` and exactly one `Report` per job, returns on
    `Done`. Whatever a trial does (NaN, out of memory, an exception) ends in that trial's report;
    the next job finds the base model untouched. A report "reached" holds a finite validation loss:
    the study takes any other as "diverged". Only such a report answers what its job asked and probed,
    by the trial's own state: the base model's where nothing was trained. An engine that can't leaves
    both empty. `close` frees models and may be called twice.
    """

    def run(self, source: Source) -> Iterator[Progress | Report]: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Says where engines run: this process, one process per device, or a cluster.

    devices: of each worker, how many it holds, whether it trains or waits; without a GPU it counts as one.
    Known before the first run, if nothing fails; what is spent is counted by them.
    """

    @property
    def devices(self) -> Sequence[float]: ...

    def run(self, source: Source) -> Iterator[Progress | Report]: ...

    def close(self) -> None: ...


class Metric(Protocol):
    """A number about a model, from the losses of the rows that it was scored on.

    Called in the driver with at least one row, after each rung and at confirmation; the search
    follows the loss alone. Whatever it raises costs the number, not the trial.
    """

    def __call__(self, rows: Sequence[RowLoss]) -> float: ...


class Observer(Protocol):
    """Hears every event of a search after the study recorded it. Must not raise for one trial."""

    def log(self, event: Progress | Report) -> None: ...
