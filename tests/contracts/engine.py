"""What every engine promises; subclassed once per engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.data.folds import pooled
from sweep.engines import checkpoint
from sweep.engines.inputs import Inputs
from sweep.search.loop import Jobs
from sweep.types import Asking, Engine, Job, Probe, Progress, Prompt, Recipe, Report, Trial, View
from tests.recipes import DEFAULTS

RECIPE = replace(
    DEFAULTS, learning_rate=3e-3, weight_decay=0.1, lora_rank=4, lora_alpha=8.0, lora_dropout=0.1
)


def job(
    start: int = 0,
    stop: int = 48,
    *,
    checkpoint: str | None = None,
    trial: str = "0",
    recipe: Recipe = RECIPE,
    horizon: int = 72,
) -> Job:
    return Job(
        id=f"{trial}@{stop}",
        attempt=3,
        trial=Trial(id=trial, number=0, recipe=recipe, seed=7, base="tiny"),
        start=start,
        stop=stop,
        horizon=horizon,
        checkpoint=checkpoint,
        train=View("train"),
        evaluation=View("validation", 16),
    )


def run(engine: Engine, *jobs: Job) -> list[Progress | Report]:
    return list(engine.run(Jobs(jobs)))


def reports(engine: Engine, *jobs: Job) -> list[Report]:
    """Exactly one for each job, in their order."""
    answered = [event for event in run(engine, *jobs) if isinstance(event, Report)]
    assert len(answered) == len(jobs)
    return sorted(answered, key=lambda report: [job.id for job in jobs].index(report.job))


class Made:
    """Tests of an engine that is closed after each."""

    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        raise NotImplementedError

    @pytest.fixture
    def engine(self, inputs: Inputs) -> Iterator[Engine]:
        engine = self.make_engine(inputs)
        yield engine
        engine.close()


class EngineContract(Made):
    """Give `make_engine`. beside_others: how much, relatively, trials beside one may change its loss."""

    beside_others = 0.0

    def test_each_job_gets_one_report_with_its_own_attempt(self, engine: Engine) -> None:
        answered = reports(engine, job(0, 8, trial="a"), job(0, 8, trial="b"))
        assert [(r.job, r.trial, r.attempt, r.state) for r in answered] == [
            ("a@8", "a", 3, "reached"),
            ("b@8", "b", 3, "reached"),
        ]

    def test_progress_counts_up_to_the_rung(self, engine: Engine) -> None:
        *steps, report = run(engine, job(0, 24))
        assert [step.examples_seen for step in steps] == [8, 16, 24]
        assert isinstance(report, Report)
        assert report.examples_seen == 24
        assert report.tokens == sum(step.tokens for step in steps if isinstance(step, Progress))

    def test_the_loss_is_that_of_the_rows(self, engine: Engine) -> None:
        (report,) = reports(engine, job(0, 8))
        nats, tokens = sum(row.nats for row in report.rows), sum(row.tokens for row in report.rows)
        assert report.validation_loss == pytest.approx(nats / tokens)
        assert math.isfinite(report.validation_loss or math.nan)

    def test_a_fold_is_judged_by_its_own_rows_and_has_states_of_its_own(self, inputs: Inputs) -> None:
        data = pooled(inputs.data, folds=3, seed=0)
        engine = self.make_engine(replace(inputs, data=data))
        folds = [
            replace(
                job(0, 24, trial=f"{fold}", horizon=24),
                trial=job().trial,
                train=View("train", fold=fold),
                evaluation=View("validation", 16, fold),
            )
            for fold in (0, 2)
        ]
        answered = reports(engine, *folds)
        engine.close()
        for fold, report in zip((0, 2), answered, strict=True):
            held_out = [row.id for row in data.examples["train"] if data.folds[row.id] == fold]
            assert [row.row for row in report.rows] == held_out[:16]
        assert len({report.checkpoint for report in answered}) == 2

    def test_it_answers_all_that_is_asked_or_nothing(self, engine: Engine) -> None:
        prompts = tuple(Prompt(f"row-{number}", (("user", "how long?"),)) for number in (98, 97, 98))
        probe = Probe(train=View("train", 3), held_out=View("test", 2), continued=1)
        (report,) = reports(engine, replace(job(0, 8), asked=Asking(prompts, 4), probe=probe))
        assert report.state == "reached"
        assert [reply.row for reply in report.replies] in ([], ["row-98", "row-97", "row-98"])
        assert [row.split for row in report.probed] in ([], ["train"] * 3 + ["test"] * 2)

    def test_stopping_and_going_on_changes_nothing(self, engine: Engine) -> None:
        (straight,) = reports(engine, job(0, 72, trial="straight"))
        (first,) = reports(engine, job(0, 24, trial="rungs"))
        (second,) = reports(engine, job(24, 72, checkpoint=first.checkpoint, trial="rungs"))
        assert second.validation_loss == straight.validation_loss
        assert _weights(second) == _weights(straight)

    def test_a_rung_may_lie_within_a_step(self, engine: Engine) -> None:
        odd = replace(RECIPE, batch_size=7)
        (straight,) = reports(engine, job(0, 40, trial="straight", recipe=odd))
        (first,) = reports(engine, job(0, 24, trial="odd", recipe=odd))
        (second,) = reports(engine, job(24, 40, checkpoint=first.checkpoint, trial="odd", recipe=odd))
        assert (first.state, second.state, second.error) == ("reached", "reached", None)
        assert second.validation_loss == straight.validation_loss
        (scored,) = reports(engine, job(24, 24, checkpoint=first.checkpoint, trial="odd", recipe=odd))
        assert scored.validation_loss == pytest.approx(first.validation_loss)

    def test_a_cancelled_job_keeps_a_checkpoint_to_go_on_from(self, engine: Engine) -> None:
        class CancelAfterTwoSteps(Jobs):
            steps = 0

            def cancelled(self) -> frozenset[str]:
                return frozenset({"cut@72"}) if self.steps >= 2 else frozenset()

        source = CancelAfterTwoSteps([job(0, 72, trial="cut")])
        for event in engine.run(source):
            source.steps += isinstance(event, Progress)
        assert isinstance(event, Report)
        assert event.state == "stopped"
        assert 16 <= event.examples_seen < 72
        (straight,) = reports(engine, job(0, 72, trial="straight"))
        rest = job(event.examples_seen, 72, checkpoint=event.checkpoint, trial="cut")
        (second,) = reports(engine, rest)
        assert second.validation_loss == straight.validation_loss

    def test_a_trial_does_not_depend_on_those_before_it(self, engine: Engine) -> None:
        (alone,) = reports(engine, job(0, 16, trial="a"))
        *_, again = reports(engine, job(0, 16, trial="b"), job(0, 16, trial="c"))
        assert again.validation_loss == pytest.approx(alone.validation_loss, rel=self.beside_others)

    def test_scoring_trains_nothing_and_keeps_the_checkpoint(self, engine: Engine) -> None:
        (trained,) = reports(engine, job(0, 24))
        (scored,) = run(engine, job(24, 24, checkpoint=trained.checkpoint))
        assert isinstance(scored, Report)
        assert scored.validation_loss == pytest.approx(trained.validation_loss)
        assert scored.checkpoint == trained.checkpoint

    def test_a_broken_checkpoint_is_told_and_the_next_trial_unharmed(self, engine: Engine) -> None:
        (first,) = reports(engine, job(0, 24))
        spoiled = next(p for p in Path(first.checkpoint or "").iterdir() if p.name != "checksums.json")
        spoiled.write_bytes(b"half")
        broken, after = reports(engine, job(24, 48, checkpoint=first.checkpoint), job(0, 24, trial="next"))
        assert (broken.state, broken.examples_seen, broken.checkpoint) == ("broken", 24, None)
        assert "is not what was written" in str(broken.error)
        assert after.validation_loss == pytest.approx(first.validation_loss, rel=self.beside_others)

    def test_divergence_ends_the_trial_and_not_the_next(self, engine: Engine) -> None:
        wild = Recipe(
            **{
                **vars(RECIPE),
                "learning_rate": 1e6,
                "max_gradient_norm": 1e9,
                "warmup_fraction": 0.0,
            }
        )
        before, diverged, after = reports(
            engine,
            job(0, 24, trial="before"),
            job(0, 24, trial="wild", recipe=wild),
            job(0, 24, trial="after"),
        )
        assert diverged.state == "diverged"
        assert diverged.validation_loss is None
        assert diverged.checkpoint is None
        assert "ower the learning rate" in str(diverged.error)
        assert after.validation_loss == pytest.approx(before.validation_loss, rel=self.beside_others)
        assert math.isfinite(after.validation_loss or math.nan)

    def test_checkpoints_are_whole(self, engine: Engine) -> None:
        (report,) = reports(engine, job(0, 8))
        assert checkpoint.verified(Path(report.checkpoint or ""))

    def test_closing_twice_is_allowed(self, inputs: Inputs) -> None:
        engine = self.make_engine(inputs)
        engine.close()
        engine.close()


def _weights(report: Report) -> Mapping[str, bytes]:
    folder = Path(report.checkpoint or "")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}
