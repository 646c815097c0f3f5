"""A sweep with several aims, from its command line to its report: the closed form, and a real model."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import optuna
import pytest

from sweep.analysis.front import front_of
from sweep.commands import run_reader
from sweep.config import compose
from sweep.engines.synthetic import Synthetic
from sweep.errors import ConfigError, StudyError
from sweep.pipeline import Pipeline
from sweep.search.storage import open_stored
from sweep.search.stored import StoredStudy, read_study
from sweep.status import status
from sweep.tracking.best import read_best
from sweep.types import Asking, Reply

GOAL = [
    "objective=pareto",
    "scheduler=full",
    "objective.goal=fewer tickets",
    "objective.success={net_per_ticket_min: 0.5, resolved_min: 0.5, wrong_max: 0.1}",
]
# Every answer is worth something, and the longer it is the later it is there.
SWEEP = [
    *("+experiment=smoke", "engine=synthetic", "data.max_rows=300", "name=aims", *GOAL),
    *("budget.trials=14", "evaluation.rows=null", "baseline=[canned]", "confirm.top_k=3", "guards.rows=null"),
]
AIMS = ["net_value", "p95_latency", "quality"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("aims")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SWEEP_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def swept(folder: Path) -> str:
    """What the first start printed."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert Pipeline(compose(SWEEP)).run() == 0
    return told.getvalue()


def stored() -> StoredStudy:
    return read_study(open_stored("sqlite:///sweep.db"), "aims")


def trials() -> list[str]:
    return [repr(t) for t in optuna.load_study(study_name="aims", storage="sqlite:///sweep.db").trials]


def test_each_trial_has_its_values_and_the_knee_leads(swept: str) -> None:
    study, theirs = stored(), optuna.load_study(study_name="aims", storage="sqlite:///sweep.db")
    assert [direction.name for direction in theirs.directions] == ["MAXIMIZE", "MINIMIZE", "MAXIMIZE"]
    for standing, frozen in zip(study.standings, theirs.trials, strict=True):
        assert [one.aim for one in standing.aims] == AIMS
        assert [one.value for one in standing.aims] == frozen.values
    front = front_of(study.standings)
    assert {one.trial.number for one in front} == {trial.number for trial in theirs.best_trials}
    assert study.best is front[0]
    assert f"Of these trial {front[0].trial.id} leads, the knee" in swept
    assert "to answer 30 rows for its net value, p95 latency, quality" in swept


def test_finalists_are_the_knee_and_others_of_the_front_and_net_value_decides(swept: str) -> None:
    study, front = stored(), front_of(stored().standings)
    found = study.confirmation
    assert found
    assert found.leader == front[0].trial.id
    assert {one.trial for one in found.finalists} == {one.trial.id for one in front[:3]} | {"0"}
    values = {one.trial: one.confirm.value for one in found.finalists}
    assert values[found.trial] == max(values.values())
    assert found.objective == "net value"
    assert not [one for one in found.verdicts if one.check == "proxy_agrees"], "the search followed no loss"
    best = read_best(Path("sweeps/best/aims.yaml"))
    assert str(best.trial) == found.trial
    assert best.confirm.value == pytest.approx(values[found.trial])


def test_runs_and_artifacts_show_the_aims(swept: str) -> None:
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (parent,) = client.search_runs(ids, "tags.`sweep.study` = 'aims'")
    nested = client.search_runs(ids, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    runs = {run.data.tags["sweep.trial"]: run.data.metrics for run in nested}
    study = stored()
    for standing in study.standings:
        shown = runs[standing.trial.id]
        assert [shown[f"aim/{one.aim}"] for one in standing.aims] == [one.value for one in standing.aims]
    assert study.best
    knee = {f"knee/{one.aim}": one.value for one in study.best.aims}
    assert parent.data.metrics.items() >= knee.items()
    assert parent.data.metrics["front/trials"] == len(front_of(study.standings))
    assert "plots/trade_offs.html" in [
        file.path for file in client.list_artifacts(parent.info.run_id, "plots")
    ]
    assert "the knee" in parent.data.tags["mlflow.note.content"]
    report = Path("runs/aims/report.html").read_text("utf-8")
    assert '<section id="trades">' in report


def test_another_terminal_sees_the_front(swept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_reader("sweep.status", SWEEP, status) == 0
    told = capsys.readouterr().out
    best = stored().best
    assert best
    assert f"knee net value {best.aims[0].value:.4g}, p95 latency {best.aims[1].value:.4g}" in told
    assert "the knee: the best balance" in told


def test_a_second_start_asks_nothing_and_changes_nothing(swept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trials()

    def none(self: Synthetic, asked: Asking, value: float) -> tuple[Reply, ...]:
        raise AssertionError("asked again")

    monkeypatch.setattr(Synthetic, "_replies", none)
    assert Pipeline(compose(SWEEP)).run() == 0
    assert trials() == before


def test_what_values_depend_on_may_not_change_and_limits_may(swept: str) -> None:
    with pytest.raises(StudyError, match=r"objective\.value_per_resolved: was 4\.2, is 9\.0"):
        Pipeline(compose([*SWEEP, "objective.value_per_resolved=9"])).run()
    with pytest.raises(StudyError, match=r"objective\.aims: was .*quality.*, is "):
        Pipeline(compose([*SWEEP, "objective.aims=[net_value,tokens]"])).run()
    assert Pipeline(compose([*SWEEP, "objective.success.wrong_max=0.2"])).run() == 0


def test_an_engine_that_answers_nothing_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthetic, "_replies", lambda *_: ())
    with pytest.raises(ConfigError, match=r"judged by replies, and the engine gave none for 0@"):
        Pipeline(compose([*SWEEP, "name=mute", "baseline=[]"])).run()


@pytest.mark.smoke
def test_a_real_model_is_searched_by_what_it_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep", "+experiment=smoke", *GOAL, "sampler=nsga2"]
    small = [
        *("budget.trials=6", "sampler.population_size=3", "evaluation.rows=6", "evaluation.reply_tokens=8"),
        *("confirm.rows=10", "baseline=[]", "objective.aims=[net_value,tokens,chrf]", "small_data.rows=null"),
    ]
    environment = {**os.environ, "SWEEP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, *small],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = read_study(open_stored(f"sqlite:///{tmp_path / 'sweep.db'}"), "smoke")
    complete = [one for one in study.standings if one.state == "complete"]
    assert complete
    for one in complete:
        net, tokens, chrf = one.aims
        assert net.unit == "EUR per ticket"
        assert 0 <= tokens.value <= 8
        assert 0 <= chrf.value <= 1
    assert study.best in front_of(study.standings)
