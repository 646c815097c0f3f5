"""The whole pipeline in this process: the synthetic engine for the sweep, the tiny model for production."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest

from sweep import training
from sweep.assembly import assemble
from sweep.commands import Interrupted, run_reader
from sweep.composition import groups
from sweep.config import compose
from sweep.driver import only_driver
from sweep.engines import checkpoint
from sweep.engines.synthetic import Synthetic
from sweep.errors import ConfigError, DataError, StudyError, TrainingError
from sweep.pipeline import Pipeline
from sweep.production import Production
from sweep.report import report as report_command
from sweep.reporting.live import Scoreboard
from sweep.search.storage import open_stored
from sweep.search.stored import read_study
from sweep.status import status
from sweep.tracking.best import read_best, write_best
from sweep.tracking.points import TAKEN
from sweep.tracking.registry import load_best
from sweep.types import Capacity, Job, Progress, Recipe, Report, RowLoss, Source, Verdict

SWEEP = ["+experiment=smoke", "engine=synthetic", "~space.lora_rank", "data.max_rows=250"]
BUSINESS = [
    "objective=business",
    "objective.goal=fewer tickets",
    "objective.success={net_per_ticket_min: 0.5, resolved_min: 0.5, wrong_max: 0.1}",
]
TRAIN = [
    "+experiment=smoke",
    "data.max_rows=250",
    "recipe.epochs=0.25",
    "~space.batch_size",
    "recipe.batch_size=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One working directory and one MLflow database."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SWEEP_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def swept(folder: Path) -> str:
    """What the first start of the sweep printed."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert Pipeline(compose(SWEEP)).run() == 0
    return told.getvalue()


def runs(name: str) -> tuple[Any, list[Any]]:
    """The parent run of this name, and its nested runs."""
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(experiments, f"tags.`sweep.study` = '{name}'")
    return parent, client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")


def by_trial(name: str) -> dict[str, Any]:
    """The nested runs by what they are of."""
    return {run.data.tags["sweep.trial"]: run for run in runs(name)[1]}


def searched(name: str) -> list[Any]:
    """Those of the search's own trials."""
    return [run for trial, run in by_trial(name).items() if trial.isdigit()]


def outline(name: str) -> list[tuple[Any, ...]]:
    study = optuna.load_study(study_name=name, storage="sqlite:///sweep.db")
    return [(t.number, t.state.name, t.params, t.intermediate_values) for t in study.trials]


def test_a_sweep_leaves_its_results_and_a_second_start_changes_nothing(swept: str) -> None:
    trials = outline("smoke")
    assert [number for number, *_ in trials] == list(range(8))
    parent, nested = runs("smoke")
    assert parent.info.status == "FINISHED"
    asked = compose(SWEEP).confirm
    complete = {number: values[max(values)] for number, state, _, values in trials if state == "COMPLETE"}
    finalists = {*sorted(complete, key=complete.__getitem__)[: asked.top_k], 0}
    fresh = {f"{number}/seed{seed + 1}" for number in finalists for seed in range(asked.seeds)}
    expected = {*map(str, range(8)), "baseline/untrained", *fresh}
    assert sorted(run.data.tags["sweep.trial"] for run in nested) == sorted(expected)
    best = read_best(Path("sweeps/best/smoke.yaml"))
    assert best.overrides == tuple(SWEEP)

    arguments = shlex.split(swept.strip().splitlines()[-1])[1:]
    assert arguments[:3] == ["python", "-m", "sweep.train"]
    again = compose(arguments[3:])
    assert (again.experiment, again.data, again.recipe) == ("smoke", compose(SWEEP).data, best.recipe)
    assert shlex.join(arguments) in Path("sweeps/best/smoke.yaml").read_text()

    assert Pipeline(compose(SWEEP)).run() == 0
    assert outline("smoke") == trials
    same, same_nested = runs("smoke")
    hours, more = (run.data.metrics.pop("device_hours") for run in (parent, same))
    assert 0 < hours < more, "the machine was held once more"
    assert same.data.metrics == parent.data.metrics
    assert {r.info.run_id: r.data.metrics for r in same_nested} == {
        r.info.run_id: r.data.metrics for r in nested
    }
    assert read_best(Path("sweeps/best/smoke.yaml")) == best


def test_metrics_stand_beside_the_loss_of_every_rung_and_in_the_best_configuration(swept: str) -> None:
    names = {"perplexity", "hard_rows"}
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    for run in searched("smoke"):
        loss, perplexity, hard_rows = (
            {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)}
            for key in ("validation_loss", "perplexity", "hard_rows")
        )
        assert hard_rows.keys() == loss.keys()
        assert all(hard_rows[step] > value + 0.1 for step, value in loss.items())
        assert perplexity == pytest.approx({step: math.exp(value) for step, value in loss.items()})
        assert run.data.metrics.keys() - names <= TAKEN
    best = read_best(Path("sweeps/best/smoke.yaml"))
    assert best.confirm.metrics.keys() == names
    assert best.default_confirm is not None
    assert best.default_confirm.metrics.keys() == names


def test_runs_beside_the_trials_show_what_confirmation_found(swept: str) -> None:
    parent, nested = runs("smoke")[0].data.metrics, by_trial("smoke")
    best = read_best(Path("sweeps/best/smoke.yaml"))
    fresh: dict[str, list[float]] = {}
    for trial, run in nested.items():
        assert run.info.status == "FINISHED"
        if "/seed" in trial:
            losses = fresh.setdefault(trial.partition("/")[0], [])
            losses.append(run.data.metrics["final_validation_loss"])
    means = {trial: sum(losses) / len(losses) for trial, losses in fresh.items()}
    assert str(best.trial) == min(means, key=means.__getitem__)
    assert best.confirm.value == pytest.approx(means[str(best.trial)])
    exponentials = [math.exp(loss) for loss in fresh[str(best.trial)]]
    assert best.confirm.metrics["perplexity"] == pytest.approx(sum(exponentials) / len(exponentials))
    assert best.default_confirm
    assert best.default_confirm.value == pytest.approx(means["0"])
    assert best.test
    assert best.default_test
    assert parent["best/confirm"] == best.confirm.value
    assert parent["best/test"] == best.test.value
    assert parent["defaults/confirm"] == best.default_confirm.value
    assert parent["defaults/test"] == best.default_test.value

    untrained = nested["baseline/untrained"]
    assert untrained.data.metrics["objective"] == best.baselines["untrained"].value > best.confirm.value
    assert untrained.data.metrics["perplexity"] == pytest.approx(math.exp(best.baselines["untrained"].value))
    assert untrained.data.tags["mlflow.note.content"] == "the base model as it is"


def test_best_configuration_study_and_terminal_say_the_same_of_the_winner(swept: str) -> None:
    best = read_best(Path("sweeps/best/smoke.yaml"))
    confirmation = read_study(open_stored("sqlite:///sweep.db"), "smoke").confirmation
    assert confirmation
    assert (confirmation.trial, confirmation.judgement.outcome) == (str(best.trial), best.decision)
    assert (confirmation.winner.confirm, confirmation.winner.test) == (best.confirm, best.test)
    assert {one.name: one.confirm for one in confirmation.baselines} == best.baselines
    (shipped,) = [verdict for verdict in best.verdicts if verdict.check == "ship"]
    assert shipped == confirmation.judgement.verdict
    assert f"verdict  {best.decision}: {shipped.message}\n" in swept
    assert f"On {confirmation.winner.test.examples} test rows the loss of trial {best.trial} is " in swept  # type: ignore[union-attr]


def test_a_budget_is_told_wherever_people_look(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["budget.gpu_hours=8", "budget.cost=40", "budget.price_per_device_hour=2.5", "budget.trials=2"]
    given = [*SWEEP, "name=paid", "backend.workers=2", *asked]
    assert Pipeline(compose(given)).run() == 0
    told = capsys.readouterr().out
    assert "; budget.gpu_hours stops it after 3.2 h" in told
    assert "no GPU is seen here: each worker counts as one device, 2 in all" in told
    study = read_study(open_stored("sqlite:///sweep.db"), "paid")
    assert study.notes.budget == compose(given).budget
    assert study.spent.device_seconds == pytest.approx(2 * study.spent.seconds)
    shown, spent = runs("paid")[0].data.metrics, study.spent
    # The study is told before the runs are ended.
    assert shown["device_hours"] == pytest.approx(spent.device_hours, abs=60 / 3600)
    assert shown["device_hours"] > 0
    assert shown["cost"] == pytest.approx(2.5 * shown["device_hours"])
    assert (shown["budget/gpu_hours"], shown["budget/cost"]) == (8.0, 40.0)
    assert "0.0 of 40 EUR" in told.partition("\nspent  ")[2].splitlines()[0]
    assert "0.0 of 40 EUR" in Path("runs/paid/report.html").read_text("utf-8")
    assert run_reader("sweep.status", given, status) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("spent ")]
    assert " of 8 GPU h, 0.0 of 40 EUR; left: " in line


@pytest.fixture(scope="module")
def through(folder: Path) -> list[str]:
    """The arguments of a sweep by replies, and its name's run."""
    asked = ["budget.trials=3", "scheduler=full", "confirm.top_k=2", "baseline=[canned,zero_shot]"]
    given = [*SWEEP, *BUSINESS, *asked]
    assert Pipeline(compose([*given, "name=through"])).run() == 0
    return given


def test_runs_of_fresh_seeds_show_what_the_objective_says(through: list[str]) -> None:
    best, nested = read_best(Path("sweeps/best/through.yaml")), by_trial("through")
    seeds = [nested[f"{best.trial}/seed{seed}"].data.metrics for seed in (1, 2)]
    assert best.test
    for prefix, score in (("", best.confirm), ("test/", best.test)):
        means = {name: sum(shown[f"{prefix}{name}"] for shown in seeds) / 2 for name in score.metrics}
        assert means == pytest.approx(dict(score.metrics))
        values = [shown[f"{prefix}objective"] for shown in seeds]
        assert sum(values) / 2 == pytest.approx(score.value)
    assert {"resolved", "wrong", "p95_seconds", "test/resolved", "test/p95_seconds"} <= seeds[0].keys()
    lost = {
        trial
        for trial, run in nested.items()
        if "/seed" in trial and "test/objective" not in run.data.metrics
    }
    trained = {trial for trial in nested if "/seed" in trial}
    assert lost == {trial for trial in trained if trial.partition("/")[0] not in (str(best.trial), "0")}
    assert all("objective" in nested[trial].data.metrics for trial in trained)


def test_a_confirmation_by_replies_that_was_interrupted_ends_as_the_whole_one(
    through: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, (run, ended) = through, (Synthetic.run, [])

    def stop_in_the_middle(engine: Synthetic, source: Source) -> Iterator[Progress | Report]:
        for event in run(engine, source):
            if isinstance(event, Report) and event.job.startswith("confirm/"):
                ended.append(event.job)
                if len(ended) == 3:
                    raise Interrupted(130)
            yield event

    monkeypatch.setattr(Synthetic, "run", stop_in_the_middle)
    with pytest.raises(Interrupted):
        Pipeline(compose([*given, "name=broken_off"])).run()
    assert not Path("sweeps/best/broken_off.yaml").exists()
    assert Pipeline(compose([*given, "name=broken_off"])).run() == 0
    assert ended.pop(2) in ended, "the one that was out is run again"
    assert len(set(ended)) == len(ended) >= 4, "and no other"

    whole, cut = (read_best(Path(f"sweeps/best/{name}.yaml")) for name in ("through", "broken_off"))
    for name in ("trial", "confirm", "test", "default_confirm", "default_test", "decision"):
        assert getattr(cut, name) == getattr(whole, name)
    assert cut.confirm.metrics.keys() > {"resolved", "escalated", "wrong", "facts", "chrf", "loss"}
    assert {name: score.value for name, score in cut.baselines.items()} == {
        name: score.value for name, score in whole.baselines.items()
    }
    assert cut.baselines.keys() == {"canned", "zero_shot"}
    nested, zero_shot = by_trial("broken_off"), cut.baselines["zero_shot"]
    assert len(nested) == len(runs("broken_off")[1]) == 3 + 2 + len(ended)
    shown = nested["baseline/zero_shot"].data.metrics
    assert (shown["objective"], shown["resolved"]) == (zero_shot.value, zero_shot.metrics["resolved"])


def test_rows_that_are_not_fit_begin_no_study(folder: Path) -> None:
    given = [*SWEEP, "name=unfit", "audit.allow=[rows]"]
    with pytest.raises(DataError, match=r"audit\.allow=\[rows,intent_rows,truncated\]"):
        Pipeline(compose(given)).run()
    with pytest.raises(StudyError, match="no study named 'unfit'"):
        read_study(open_stored("sqlite:///sweep.db"), "unfit")
    assert json.loads(Path("runs/unfit/audit.json").read_text())["allowed"] == ["rows"]
    assert not Path("runs/unfit/baselines.json").exists()


def test_what_the_data_was_allowed_is_kept_with_the_results(swept: str) -> None:
    audited = read_study(open_stored("sqlite:///sweep.db"), "smoke").notes.audit
    assert audited
    assert audited.allowed == ("rows", "intent_rows", "truncated")
    assert json.loads(Path("runs/smoke/audit.json").read_text())["allowed"] == list(audited.allowed)
    found = {verdict.check: verdict for verdict in read_best(Path("sweeps/best/smoke.yaml")).verdicts}
    assert found.items() >= {verdict.check: verdict for verdict in audited.verdicts}.items()
    assert (found["rows"].passed, found["rows"].severity) == (False, "error")
    assert runs("smoke")[0].data.metrics["audit/rows"] == found["rows"].value == 250
    assert "allowed: 250 different rows (rows, at least 500)" in swept


class Broken:
    def __call__(self, rows: Sequence[RowLoss]) -> float:
        raise IndexError("on purpose")


def test_a_metric_that_raises_costs_nothing_but_its_number(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = f"+metric.broken={{_target_: {__name__}.Broken}}"
    given = [*SWEEP, "name=broken", "budget.trials=2", broken, f"trusted_targets=[{__name__}]"]
    assert Pipeline(compose(given)).run() == 0
    (told,) = [message for message in caplog.messages if "metric.broken" in message]
    assert told.startswith("metric.broken raised IndexError, so it is left out")
    assert by_trial("broken")["0"].data.metrics.keys() >= {"perplexity", "hard_rows"}
    assert read_best(Path("sweeps/best/broken.yaml")).confirm.metrics.keys() == {"perplexity", "hard_rows"}


def test_a_study_goes_on_with_other_metrics(folder: Path) -> None:
    given = [*SWEEP, "name=later", "metric=[]", "budget.trials=2"]
    assert Pipeline(compose(given)).run() == 0
    assert not read_best(Path("sweeps/best/later.yaml")).confirm.metrics
    assert Pipeline(compose([*given, "metric=[perplexity]", "budget.trials=3"])).run() == 0
    assert read_best(Path("sweeps/best/later.yaml")).confirm.metrics.keys() == {"perplexity"}
    shown = {trial: "perplexity" in run.data.metrics for trial, run in by_trial("later").items()}
    assert shown["2"]
    assert not shown["0"], "its rungs were done before"


def test_the_report_lies_in_the_folder_and_in_the_runs(swept: str) -> None:
    report = Path("runs/smoke/report.html")
    assert f"report {report}" in swept
    parent, _ = runs("smoke")
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    assert "report.html" in [artifact.path for artifact in client.list_artifacts(parent.info.run_id)]
    assert "|  | best (trial" in parent.data.tags["mlflow.note.content"]
    written = report.read_text("utf-8")
    report.unlink()
    assert run_reader("sweep.report", SWEEP, report_command) == 0
    assert "a tiny random model" not in written, "overrides changed what the experiment's file says"
    assert report.read_text("utf-8").count("<tr") == written.count("<tr") > 8


def test_another_terminal_sees_where_a_sweep_stands(swept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_reader("sweep.status", SWEEP, status) == 0
    told = capsys.readouterr().out
    assert "none: the sweep is done" in told
    assert "8 of 8 trials begun" in told
    assert "on this machine" not in told
    with only_driver(Path("runs/smoke")):
        assert run_reader("sweep.status", SWEEP, status) == 0
    assert f"driver   process {os.getpid()} on " in capsys.readouterr().out


def test_the_status_of_a_stopped_sweep_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*SWEEP, "name=halfway"]

    def stop_at_the_third(self: Any, event: Any) -> None:
        if event.trial == "3":
            raise Interrupted(130)

    monkeypatch.setattr(Scoreboard, "log", stop_at_the_third)
    with pytest.raises(Interrupted):
        Pipeline(compose(given)).run()
    capsys.readouterr()
    assert run_reader("sweep.status", given, status) == 0
    told = capsys.readouterr().out
    assert f"go on with: {shlex.join(['python', '-m', 'sweep', *given])}" in told
    assert "4 of 8 trials begun" in told
    assert "best so far" in told


def test_a_winner_whose_state_is_damaged_is_trained_again_by_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a URL, where the start looks for the files alone."""

    def save(self: Synthetic, job: Job, examples: int) -> str | None:
        if job.start == job.stop:
            return job.checkpoint
        trained.append(job.trial.id)
        target = self._inputs.state(job, examples)
        with checkpoint.writing(target) as aside:
            for name in ("state.json", *checkpoint.ADAPTER_FILES):
                (aside / name).write_text(json.dumps({"examples_seen": examples}))
        return target

    monkeypatch.setattr(Synthetic, "_save", save)
    trained: list[str] = []
    place = [f"checkpoints=file://{folder}/states", "name=damaged", "budget.trials=3"]
    unregistered = [*SWEEP, *place, "tracking.register=false"]
    assert Pipeline(compose(unregistered)).run() == 0
    winner = f"{read_best(Path('sweeps/best/damaged.yaml')).trial}/seed1"
    (state,) = (folder / "states" / winner).iterdir()
    (state / "adapter_model.safetensors").write_text("spoilt")
    trained.clear()
    with pytest.raises(TrainingError, match=rf"^file://{state}/adapter_model.*Start the same command again"):
        Pipeline(compose([*SWEEP, *place])).run()
    assert (trained, state.exists()) == ([], False)
    unfinished = Path("runs/damaged/.best_adapter.host.4711")
    unfinished.mkdir()
    assert Pipeline(compose(unregistered)).run() == 0
    assert not unfinished.exists()
    assert trained == [winner]
    assert not checkpoint.is_broken(str(state))


def test_a_sweep_in_which_nothing_ends_is_an_error_with_the_reasons(folder: Path) -> None:
    given = [*SWEEP, "name=steep", "~space.learning_rate", "recipe.learning_rate=0.05", "budget.trials=2"]
    with pytest.raises(TrainingError, match="diverged: training loss is not finite after") as caught:
        Pipeline(compose(given)).run()
    assert "name=steep_2" in str(caught.value)
    assert runs("steep")[0].info.status == "FAILED"
    assert not Path("sweeps/best/steep.yaml").exists()


def test_defaults_that_diverge_leave_no_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packaged = groups()["recipe"]["lora"].read_text()
    far = folder / "conf/recipe/far.yaml"
    far.parent.mkdir(parents=True)
    far.write_text(re.sub("learning_rate: .*", "learning_rate: 0.05", packaged))
    given = [*SWEEP, "name=far", "recipe=far", "space.learning_rate=choice(0.001, 0.05)"]
    assert Pipeline(compose(given)).run() == 0
    said = capsys.readouterr().out
    assert "Against untrained: " in said
    assert "Against defaults" not in said
    best = read_best(Path("sweeps/best/far.yaml"))
    assert (best.default_confirm, best.default_test) == (None, None)
    assert not {"defaults/confirm", "defaults/test"} & runs("far")[0].data.metrics.keys()


def test_where_all_trials_recite_the_leader_is_told_to_be_unfit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*SWEEP, "name=recited", "recipe.epochs=3", "budget.trials=3"]
    assert Pipeline(compose(given)).run() == 0
    told = capsys.readouterr().out
    assert "fails guard loss_ratio, verbatim" in told
    assert re.search(r"Nothing is registered: trial \d fails loss_ratio, min_k, verbatim\.", told)
    best = read_best(Path("sweeps/best/recited.yaml"))
    failed = {verdict.check: verdict.value for verdict in best.verdicts if not verdict.passed}
    assert failed["loss_ratio"] == pytest.approx(10, abs=2)
    assert failed["verbatim"] == 1.0
    parent, nested = runs("recited")[0], searched("recited")
    assert "No trial may win" in parent.data.tags["mlflow.note.content"]
    ended = [run for run in nested if "final_validation_loss" in run.data.metrics]
    assert [run.data.metrics["guard/verbatim"] for run in ended] == [1.0] * len(ended)
    assert ended[0].data.tags["sweep.reason"].startswith("fails guard loss_ratio, verbatim: ")

    capsys.readouterr()
    free = [*SWEEP, "name=free", "recipe.epochs=3", "budget.trials=3", "guards.rows=null"]
    assert Pipeline(compose(free)).run() == 0
    assert "fails guard" not in capsys.readouterr().out


def test_limits_of_a_trials_guards_are_parts_of_the_fingerprint_and_others_are_not(folder: Path) -> None:
    plain = assemble(compose(SWEEP)).fingerprint
    limits = ["guards.verbatim={warn: 0.1, error: 0.3}", "guards.overlap={warn: 0.0, error: 0.3}"]
    other = assemble(compose([*SWEEP, *limits])).fingerprint
    assert {key for key in plain if plain[key] != other[key]} == {"guards.verbatim"}


def test_the_dtype_and_the_engine_are_parts_of_the_fingerprint(folder: Path) -> None:
    plain = assemble(compose(SWEEP)).fingerprint
    other = assemble(compose([*SWEEP, "model.dtype=bfloat16"])).fingerprint
    assert {key for key in plain if plain[key] != other[key]} == {"model.dtype"}
    assert plain["engine"] == "Synthetic"


@pytest.fixture(scope="module")
def folded(swept: str) -> list[str]:
    """The arguments of a sweep by cross-validation, as the first one's start offered it to few rows."""
    (offered,) = re.findall(r"175 train rows are few: (.*) judges each trial", swept)
    given = [*SWEEP, *shlex.split(offered)]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert Pipeline(compose(given)).run() == 0
    assert "validation 25" not in told.getvalue()
    assert "train 200" in told.getvalue()
    assert "judged on 5 folds, after 80 examples each" in told.getvalue()
    assert "are few: validation=kfold" not in told.getvalue()
    return given


def test_a_cross_validation_hands_over_what_its_finalists_were_trained_on(folded: list[str]) -> None:
    best = read_best(Path("sweeps/best/smoke_kfold.yaml"))
    study = read_study(open_stored("sqlite:///sweep.db"), "smoke_kfold")
    assert (best.folds, study.folds, study.ladder) == (5, 5, (80, 160, 240, 320, 400))
    assert best.horizon == 96, "half an epoch of the pool, in batches of 8 at most"
    assert (best.validation.examples, best.validation.value) == (
        5 * 24,
        study.standings[best.trial].loss,
    )
    fresh = by_trial("smoke_kfold")[f"{best.trial}/seed1"].data.metrics
    assert fresh["examples_seen"] == best.horizon
    trained = compose(["+experiment=smoke", "data.max_rows=250", "+best=smoke_kfold"])
    assert trained.validation.folds == 5
    assert assemble(trained).data.fingerprint == best.data_fingerprint


def test_the_runs_of_a_cross_validation_show_each_fold_and_their_mean(folded: list[str]) -> None:
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    states = set()
    for run in searched("smoke_kfold"):
        metrics = run.data.metrics
        losses, folds, steps = (
            {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)}
            for key in ("validation_loss", "fold", "train_loss")
        )
        assert losses.keys() == folds.keys() <= steps.keys()
        assert list(folds.values()) == list(range(1, len(folds) + 1))
        states.add(run.data.tags["sweep.state"])
        if run.data.tags["sweep.state"] == "complete":
            assert len(losses) == 5
            assert metrics["final_validation_loss"] == pytest.approx(sum(losses.values()) / 5)
    assert states == {"complete", "pruned"}


def test_the_page_and_the_status_of_a_cross_validation_speak_of_folds(
    folded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("runs/smoke_kfold/report.html").read_text()
    text = page[: page.index("Plotly")] + page[page.rindex("</script>") :] if "Plotly" in page else page
    assert "Losses by fold" in page
    assert "trained anew for each of 5 folds, 80 examples of the other folds" in page
    assert [f">{heading}</button>" in page for heading in ("mean loss", "fold 1", "fold 5", "fold 6")] == [
        True,
        True,
        True,
        False,
    ]
    assert "Learning curves" not in text
    assert "examples seen" not in text
    assert run_reader("sweep.status", folded, status) == 0
    assert re.search(r"best \d\.\d{4} \(trial \d\) after 5 of 5 folds", capsys.readouterr().out)


def test_a_second_start_of_a_cross_validation_changes_nothing(folded: list[str]) -> None:
    before, best = outline("smoke_kfold"), read_best(Path("sweeps/best/smoke_kfold.yaml"))
    assert Pipeline(compose(folded)).run() == 0
    assert outline("smoke_kfold") == before
    assert read_best(Path("sweeps/best/smoke_kfold.yaml")) == best


def test_a_study_does_not_change_how_it_validates(folded: list[str]) -> None:
    for other, said in ((["validation=holdout", "scheduler=full"], "None"), (["validation.folds=6"], "6")):
        with pytest.raises(StudyError, match=rf"validation\.folds: was 5, is {said}"):
            Pipeline(compose([*folded, *other])).run()


def test_production_trains_on_the_pool_and_watches_confirm_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = ["validation=kfold", "scheduler=full", "name=pool", "tracking.register=false"]
    assert Production(compose([*TRAIN, *pool])).run() == 0
    told = capsys.readouterr().out
    assert "200 rows to train on" in told
    assert "     50 examples  confirm loss" in told


def test_a_registered_training_on_a_pool_brings_it_to_the_next_generation(
    folded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["+experiment=smoke", "data.max_rows=250"]
    assert Production(compose([*rows, "name=pooled", "+best=smoke_kfold"])).run() == 0
    first = capsys.readouterr().out
    again = [*rows, "name=pooled_again", "recipe_from=models:/pooled/1", "tracking.register=false"]
    assert Production(compose(again)).run() == 0
    second = capsys.readouterr().out
    for told in (first, second):
        assert "200 rows to train on" in told
        assert "found on other data or other splits" not in told
    golden = [re.findall(r"loss (\d\.\d+) ±", told)[-1] for told in (first, second)]
    assert golden[0] == golden[1]


@pytest.mark.parametrize("steps", range(1, 11))
@pytest.mark.parametrize("batch_size", [1, 8])
def test_parts_are_whole_steps_without_repetition(steps: int, batch_size: int) -> None:
    horizon = steps * batch_size
    parts = training.parts(0, horizon, batch_size)
    assert parts == sorted(set(parts))
    assert parts[0] > 0
    assert parts[-1] == horizon
    assert len(parts) == min(steps, 4)
    assert all(part % batch_size == 0 for part in parts)
    assert training.parts(parts[0], horizon, batch_size) == (parts[1:] or [horizon])


def test_a_training_that_was_interrupted_goes_on_to_the_same_loss(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Production(compose([*TRAIN, "name=whole", "tracking.register=false"])).run() == 0
    interrupted = [*TRAIN, "name=cut", "tracking.register=false"]
    log, seen = training.Training.log, []

    def stop_inside_a_part(self: Any, event: Any) -> None:
        log(self, event)
        if isinstance(event, Progress):
            seen.append(event.examples_seen)
            if len(seen) == 7:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training.Training, "log", stop_inside_a_part)
    with pytest.raises(Interrupted) as caught:
        Production(compose(interrupted)).run()
    assert caught.value.exit_code == 130
    assert runs("cut/train")[1][0].info.status == "KILLED"
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    kept = {int(path.name) for path in Path("runs/cut/checkpoints/train").glob("*/*")}
    horizon = max(int(path.name) for path in Path("runs/whole/checkpoints/train").glob("*/*"))
    assert seen[-1] == max(kept) not in training.parts(0, horizon, 2)
    assert Production(compose(interrupted)).run() == 0

    (parent, (whole,)), (_, (cut,)) = runs("whole/train"), runs("cut/train")
    for run in (whole, cut):
        assert run.info.status == "FINISHED"
    key = "final_validation_loss"
    assert cut.data.metrics[key] == whole.data.metrics[key]
    assert runs("cut/train")[0].data.metrics == parent.data.metrics
    assert {"golden_loss", "base/golden_loss", "golden_hard_rows"} <= parent.data.metrics.keys()


def test_a_training_whose_states_are_damaged_trains_up_to_them_once_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = compose([*TRAIN, "name=spoilt", "tracking.register=false"])
    log, reached = training.Training.log, []

    def spoil(self: Any, event: Any) -> None:
        log(self, event)
        if isinstance(event, Report) and event.state == "reached":
            reached.append(event.examples_seen)
            if len(reached) == 2 or event.examples_seen == self.length.stop:
                Path(event.checkpoint or "", "adapter_model.safetensors").write_text("spoilt")

    monkeypatch.setattr(training.Training, "log", spoil)
    with pytest.raises(TrainingError, match=r"golden rows ended as broken .*Start the same command again"):
        Production(given).run()
    first, second, *rest = reached
    assert rest[0] == second, "the next part found it broken, and the one before was whole"
    assert f"going on from {first} of" in capsys.readouterr().out
    assert not list(Path("runs/spoilt/checkpoints/train").glob("*/*"))
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert Production(given).run() == 0


def test_a_registered_training_brings_its_recipe_to_the_next_generation(swept: str) -> None:
    given = ["+experiment=smoke", "data.max_rows=250"]
    best = replace(read_best(Path("sweeps/best/smoke.yaml")), experiment="first", decision="ship")
    short = replace(
        best, recipe=replace(best.recipe, epochs=0.1), model=assemble(compose(given)).model_description
    )
    write_best(short, Path("sweeps/best/first.yaml"))
    assert Production(compose([*given, "name=first", "+best=first"])).run() == 0
    assert Production(compose([*given, "name=second", "recipe_from=models:/first@champion"])).run() == 0
    config = compose(given)
    assert load_best("models:/second@champion", config.tracking) == short


class Overfitting(Synthetic):
    """Of every trial the loss rises after 60 examples."""

    def expected(self, recipe: Recipe, examples: int, seed: int) -> float:
        lowest = super().expected(recipe, min(examples, 60), seed)
        return lowest + 0.2 * math.log(max(examples, 60) / 60)


def test_what_is_confirmed_in_an_earlier_state_is_trained_to_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = [f"engine._target_={__name__}.Overfitting", f"trusted_targets=[{__name__}]"]
    given = [*SWEEP, *engine, "name=early", "budget.trials=3", "recipe.epochs=0.8", "confirm.top_k=2"]
    given += ["scheduler=median", "scheduler.eta=3", "scheduler.rungs=2"]
    assert Pipeline(compose(given)).run() == 0
    best = read_best(Path("sweeps/best/early.yaml"))
    assert best.stop < 60 < best.horizon
    confirmed = [run for trial, run in by_trial("early").items() if trial.startswith(f"{best.trial}/seed")]
    assert {run.data.metrics["examples_seen"] for run in confirmed} == {best.stop}
    capsys.readouterr()
    tiny = ["+experiment=smoke", "data.max_rows=250", "name=early", "tracking.register=false", "+best=early"]
    assert Production(compose(tiny)).run() == 0
    assert f"stops after {best.stop} of the schedule's {best.horizon} examples" in capsys.readouterr().out
    _, (trained,) = runs("early/train")
    assert (trained.info.status, trained.data.metrics["examples_seen"]) == ("FINISHED", best.stop)


def test_a_training_that_stops_early_is_the_beginning_of_the_whole_one(swept: str) -> None:
    whole = compose([*TRAIN, "name=to_the_end", "tracking.register=false"])
    assert Production(whole).run() == 0
    found = replace(
        read_best(Path("sweeps/best/smoke.yaml")),
        recipe=whole.recipe,
        model=assemble(whole).model_description,
        horizon=400,
        stop=100,
        unit=2,
    )
    write_best(found, Path("sweeps/best/quarter.yaml"))
    given = ["+experiment=smoke", "data.max_rows=250", "tracking.register=false"]
    assert Production(compose([*given, "name=quarter", "+best=quarter"])).run() == 0
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    (_, (trained,)), (_, (beginning,)) = runs("to_the_end/train"), runs("quarter/train")
    for key in ("train_loss", "learning_rate"):
        all_steps, first = (
            [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for run in (trained, beginning)
        )
        assert first == [point for point in all_steps if point[0] <= all_steps[-1][0] / 4 + 1]
        assert len(all_steps) > 3 * len(first) > 9


def test_what_the_sweep_would_not_ship_is_trained_with_its_warning_and_becomes_a_challenger_only(
    swept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["+experiment=smoke", "data.max_rows=250", "name=doubted", "+best=doubted"]
    found = read_best(Path("sweeps/best/smoke.yaml"))
    verdict = Verdict(
        check="ship", passed=False, severity="warn", value=0.1, limit=0.0, message="few_shot will do"
    )
    doubted = replace(
        found,
        experiment="doubted",
        recipe=replace(found.recipe, epochs=0.05),
        model=assemble(compose(given[:2])).model_description,
        decision="use_baseline",
        verdicts=(verdict,),
    )
    write_best(doubted, Path("sweeps/best/doubted.yaml"))
    assert Production(compose(given)).run() == 0
    said = capsys.readouterr().out
    assert (
        "the sweep's verdict was use_baseline: few_shot will do; what is trained becomes a challenger" in said
    )
    registered = mlflow.MlflowClient("sqlite:///mlflow.db").get_registered_model("doubted")
    assert registered.aliases.keys() == {"challenger"}


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_a_training_that_fails_says_why_and_shows_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    def run(engine: Synthetic, source: Source) -> Iterator[Report]:
        while isinstance(job := source.next(Capacity()), Job):
            yield Report(
                job=job.id, trial=job.trial.id, attempt=0, examples_seen=4, state=state, error="on purpose"
            )

    monkeypatch.setattr(Synthetic, "run", run)
    with pytest.raises(TrainingError, match=f"training ended as {state} at 4 examples: on purpose"):
        Production(compose([*TRAIN, "engine=synthetic", f"name={state}"])).run()
    _, (nested,) = runs(f"{state}/train")
    assert (nested.info.status, nested.data.tags["sweep.state"]) == ("FAILED", state)


def test_a_registered_recipe_and_one_from_the_command_line_exclude_each_other(folder: Path) -> None:
    given = ["+experiment=smoke", "recipe_from=models:/smoke@champion", "recipe.epochs=2"]
    with pytest.raises(ConfigError, match=r"recipe\.epochs=2 exclude each other"):
        Production(compose(given)).run()
