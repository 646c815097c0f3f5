"""Whether the winner really wins: fresh seeds, rows that chose nothing, and one look at the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweep.analysis.front import front_of
from sweep.data.split import DataSet
from sweep.errors import TrainingError
from sweep.evaluation.confirmation import Confirmation, Finalist, Simpler
from sweep.evaluation.guards import Guards, guard_forgetting, guard_overlap, guard_probe
from sweep.evaluation.learning_curve import still_falling, unused
from sweep.evaluation.proxy import proxy_agrees
from sweep.evaluation.rows import Row
from sweep.evaluation.selection import Better, Seeds, badness, choose, finalists, seed_mean, seeded_difference
from sweep.evaluation.significance import signed_rank_p
from sweep.evaluation.slices import Slice, compare_slices
from sweep.evaluation.verdict import Comparison, judge_winner
from sweep.stages.baselines import Baselines, Tried
from sweep.stages.finalists import Finalists, Trained
from sweep.stages.yardstick import Measured, as_metrics, mean_of
from sweep.tracking.mlflow import Tracker
from sweep.types import Score, Standing, Verdict

DEFAULTS = "0"
# Looks at test rows are kept with the study: in its storage others find them, whatever becomes of its folder.
OPENED = "test_opened"

_NONE_ABLE = (
    "No trial can be confirmed: one that came to its end in the search and holds to its guards must do so "
    "with fresh seeds too. Search on with more trials (budget.trials), or elsewhere under another name."
)


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What was found; the training of the winner whose state is handed over; every training there was.

    winner: its verdicts are the limits and guards of all its seeds. metrics: what the objective says of each
    training, by its id, on confirm rows and, under `test/`, on test rows.
    """

    confirmation: Confirmation
    winner: Standing
    runs: tuple[Standing, ...]
    metrics: Mapping[str, Mapping[str, float]]


def confirm(
    finals: Finalists,
    baselines: Baselines,
    tried: Sequence[Tried],
    *,
    guards: Guards,
) -> Confirmed:
    """The confirmation of a study's best trials.

    tried: the baselines on the confirm split, best first. The winner is chosen among finalists on the confirm
    split; then the test split is opened for the winner, the defaults and the best baseline. Raises
    TrainingError where no finalist comes to its end with fresh seeds.
    Source of the intervals: `seeded_difference`.
    """
    better = finals.yardstick.better
    ended = [one for one in finals.study.standings if one.state == "complete"]
    complete = {one.trial.id: one.loss for one in ended}
    trained = finals.trained(finalists_of(ended, count=finals.asked.top_k))
    # The defaults are among the finalists, whatever the search said of them.
    able = [one.trial.id for one in _allowed(ended) if one.trial.id in trained]
    if not able:
        raise TrainingError(_NONE_ABLE)
    chosen, as_good = choose(
        {trial: _rows(trained[trial].measured) for trial in able},
        better=better,
        losses={trial: trained[trial].loss for trial in able},
        material=finals.yardstick.objective.material,
    )
    opened, opened_by = _open(finals, chosen)
    rivals = [trial for trial in dict.fromkeys((chosen, DEFAULTS)) if trial in trained]
    tested = {trial: finals.tested(trained[trial]) for trial in rivals}
    simpler = _best(baselines.tried(finals.view("test"), [tried[0].name])) if tried else None
    means = {trial: mean_of(seeds) for trial, seeds in tested.items()}
    versus = _Versus(finals.yardstick.data, finals.study.plan.seed, tested[chosen], means[chosen])
    own = (
        *finals.yardstick.objective.verdicts(means[chosen].score),
        *_guarded(finals, trained[chosen], guards),
    )
    judgement = judge_winner(
        versus.compared(simpler.name, simpler.measured.rows, succeeds=simpler.succeeds) if simpler else None,
        versus.compared("defaults", _rows(tested[DEFAULTS])) if len(tested) == 2 else None,
        guards=own,
        better=better,
    )
    scores = {trial: mean_of(one.measured).score for trial, one in trained.items()}
    order = sorted(trained, key=lambda trial: (trial == DEFAULTS, badness(scores[trial].value, better)))
    # Where several aims were followed, the loss stood for nothing.
    proxy = _proxy(complete, scores, better) if finals.yardstick.judge and not front_of(ended) else ()
    leader = finals.study.best
    assert leader is not None
    confirmation = Confirmation(
        leader=leader.trial.id,
        trial=chosen,
        objective=finals.yardstick.objective.name,
        unit=finals.yardstick.objective.unit,
        better=better,
        seeds=finals.asked.seeds,
        finalists=tuple(
            Finalist(
                trial=trial,
                loss=complete.get(trial),
                confirm=scores[trial],
                test=means[trial].score if trial in means else None,
            )
            for trial in order
        ),
        baselines=tuple(
            simpler_from(one, test=simpler.measured.score if simpler and simpler.name == one.name else None)
            for one in tried
        ),
        judgement=judgement,
        verdicts=(*own, *proxy, _more_rows(finals, trained[chosen])),
        slices=versus.slices(simpler.measured, better) if simpler else (),
        opened=opened,
        opened_by=opened_by,
        as_good=as_good,
    )
    return Confirmed(
        confirmation=confirmation,
        winner=replace(trained[chosen].runs[0], verdicts=own),
        runs=tuple(run for one in trained.values() for run in one.runs),
        metrics={
            one.jobs[seed].trial.id: as_metrics(measured.score)
            | (as_metrics(tested[trial][seed].score, "test/") if trial in tested else {})
            for trial, one in trained.items()
            for seed, measured in one.measured.items()
        },
    )


def log_confirmed(confirmed: Confirmed, tracker: Tracker) -> None:
    """Each training as a run beside the search's, with what the objective says of it."""
    tracker.sync(confirmed.runs)
    for run in confirmed.runs:
        trial, _, seed = run.trial.id.partition("/")
        described = f"trial {trial}, trained again with a fresh seed, {seed}; test/ is on test rows"
        tracker.log_beside(run.trial.id, described, confirmed.metrics[run.trial.id])


def finalists_of(standings: Sequence[Standing], *, count: int) -> tuple[str, ...]:
    """The trials that are trained again, best first, then the defaults.

    The `count` best by the search's loss, or by several aims of the front, the knee first: of those that hold
    to their guards, or of all where none does.
    """
    ended = [one for one in standings if one.state == "complete"]
    allowed = _allowed(ended)
    violations = {one.trial.id: one.violation for one in ended if one not in allowed}
    places = {one.trial.id: float(place) for place, one in enumerate(front_of(ended))}
    losses = {one.trial.id: one.loss for one in ended}
    return finalists(places or losses, violations, better="lower", defaults=DEFAULTS, count=count)


def _allowed(ended: Sequence[Standing]) -> Sequence[Standing]:
    return [one for one in ended if not one.broken] or ended


def simpler_from(tried: Tried, *, test: Score | None = None) -> Simpler:
    """A baseline as the confirmation names it. test: its score there, if it was asked."""
    return Simpler(
        name=tried.name,
        description=tried.description,
        confirm=tried.measured.score,
        test=test,
        succeeds=tried.succeeds,
    )


@dataclass(frozen=True)
class _Versus:
    """The winner on test rows, to be compared. seed: of the resampling."""

    data: DataSet
    seed: int
    seeds: Mapping[int, Measured]
    mean: Measured

    def compared(self, rival: str, theirs: Seeds | Sequence[Row], *, succeeds: bool = False) -> Comparison:
        """Against a rival's seeds, or against what is not trained."""
        mine = _rows(self.seeds)
        other = seed_mean(theirs) if isinstance(theirs, Mapping) else theirs
        return Comparison(
            rival=rival,
            difference=seeded_difference(mine, theirs, clusters=self.data.groups, seed=self.seed),
            signed_rank_p=signed_rank_p(self.mean.rows, other, clusters=self.data.groups),
            succeeds=succeeds,
        )

    def slices(self, rival: Measured, better: Better) -> tuple[Slice, ...]:
        """Against a rival on each part of the traffic."""
        parts = {row.id: row.slices for row in self.data.examples["test"]}
        return compare_slices(
            self.mean.rows,
            rival.rows,
            parts,
            clusters=self.data.groups,
            seed=self.seed,
            better=better,
        )


def _guarded(finals: Finalists, winner: Trained, guards: Guards) -> tuple[Verdict, ...]:
    """What the winner learnt by heart or forgot, all seeds together."""
    data, effects = finals.yardstick.data, finals.side_effects(winner)
    verdicts = list(guard_probe(effects.probed, guards)) if effects.probed else []
    if replies := finals.replies(winner):
        references = [row.response for row in data.examples["confirm"][: finals.asked.rows]]
        trained = (row.response for row in data.examples["train"])
        verdicts.append(guard_overlap(replies, references, trained, guards))
    if effects.general_before and effects.general_after:
        verdicts.append(guard_forgetting(effects.general_before, effects.general_after, guards))
    return tuple(verdicts)


def _more_rows(finals: Finalists, winner: Trained) -> Verdict:
    losses = finals.losses_by_rows(winner)
    return unused(winner.standing.trial.recipe.epochs) if losses is None else still_falling(losses)


def _proxy(losses: Mapping[str, float], scores: Mapping[str, Score], better: Better) -> tuple[Verdict, ...]:
    """Whether the search's loss orders the finalists as the objective does."""
    known = [trial for trial in scores if trial in losses]
    values = [scores[trial].value for trial in known]
    return (proxy_agrees([losses[trial] for trial in known], values, higher_is_better=better == "higher"),)


def _open(finals: Finalists, chosen: str) -> tuple[int, tuple[str, ...]]:
    """How often these test rows were opened, now included, and by which other studies; each tells less."""
    study, rows = finals.study, finals.yardstick.data.content_of("test")
    look = [rows, chosen, finals.asked.seeds, finals.asked.rows]
    own = study.noted(OPENED).get(study.plan.name, [])
    if look not in own:
        study.note(OPENED, [*own, look])
    looks = {name: sum(look[0] == rows for look in found) for name, found in study.noted(OPENED).items()}
    others = sorted(name for name, count in looks.items() if count and name != study.plan.name)
    return sum(looks.values()), tuple(others)


def _best(tried: Sequence[Tried]) -> Tried | None:
    return tried[0] if tried else None


def _rows(measured: Mapping[int, Measured]) -> dict[int, Sequence[Row]]:
    return {seed: one.rows for seed, one in measured.items()}
