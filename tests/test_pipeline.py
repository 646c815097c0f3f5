"""The commands as a person types them, on the tiny model: results, resuming, production training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.storages import RDBStorage

from sweep.config import compose
from sweep.engines.model import peft_on_transformers

pytestmark = pytest.mark.smoke

# One slot repeats bit for bit; beside others a trial's last bits change.
SWEEP = [sys.executable, "-m", "sweep", "+experiment=smoke", "engine.slots=1"]
TRAIN = [sys.executable, "-m", "sweep.train", "+experiment=smoke"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder in which the smoke experiment ran once."""
    folder = tmp_path_factory.mktemp("done")
    output = run(SWEEP, folder, cache)
    assert "next   python -m sweep.train +experiment=smoke engine.slots=1 +best=smoke" in output
    return folder


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "SWEEP_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}


def run(command: list[str], folder: Path, cache: Path, *, code: int = 0) -> str:
    result = subprocess.run(
        command, cwd=folder, env=environment(cache), capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def start_and_stop(
    command: list[str], folder: Path, cache: Path, *, lines: int, how: signal.Signals
) -> tuple[int, float]:
    """Send the signal once so many trial lines were printed; the exit code, and after how many seconds."""
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(cache), stdout=stream, stderr=subprocess.STDOUT
        )
        while log.read_text().count("  trial ") < lines:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(how)
        begun = time.monotonic()
        return process.wait(timeout=60), time.monotonic() - begun


def outline(folder: Path) -> list[tuple[Any, ...]]:
    storage = RDBStorage(f"sqlite:///{folder / 'sweep.db'}")
    try:
        (study,) = storage.get_all_studies()
        trials = storage.get_all_trials(study._study_id)
        return [(t.number, t.state.name, t.params, t.intermediate_values) for t in trials]
    finally:
        storage.remove_session()
        storage.engine.dispose()


def runs(folder: Path) -> tuple[list[Any], list[Any]]:
    """The parents and the nested runs of the sweep."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "smoke"]
    found = client.search_runs([experiment.experiment_id], max_results=500)
    nested = [r for r in found if "mlflow.parentRunId" in r.data.tags]
    return [r for r in found if r not in nested], nested


def expected_runs(trials: list[tuple[Any, ...]]) -> set[str]:
    """Of each trial, of the untrained model, and of the finalists' and the defaults' fresh seeds."""
    asked = compose(["+experiment=smoke"]).confirm
    complete = {number: values[max(values)] for number, state, _, values in trials if state == "COMPLETE"}
    finalists = {*sorted(complete, key=complete.__getitem__)[: asked.top_k], 0}
    fresh = {f"{number}/seed{seed + 1}" for number in finalists for seed in range(asked.seeds)}
    return {*(str(number) for number, *_ in trials), "baseline/untrained", *fresh}


def test_a_sweep_leaves_a_study_runs_and_a_best_configuration(done: Path) -> None:
    trials = outline(done)
    assert [number for number, *_ in trials] == list(range(8))
    assert {state for _, state, *_ in trials} <= {"COMPLETE", "PRUNED"}
    parents, nested = runs(done)
    assert len(parents) == 1
    assert {run.data.tags["sweep.trial"] for run in nested} == expected_runs(trials)
    assert len(nested) == len(expected_runs(trials))
    assert {"best/confirm", "best/test", "defaults/test"} <= parents[0].data.metrics.keys()
    best = yaml.safe_load((done / "sweeps/best/smoke.yaml").read_text())
    fresh: dict[str, list[float]] = {}
    for run in nested:
        trial, _, seed = run.data.tags["sweep.trial"].partition("/seed")
        if seed:
            fresh.setdefault(trial, []).append(run.data.metrics["final_validation_loss"])
    assert str(best["best"]["trial"]) == min(fresh, key=lambda trial: sum(fresh[trial]))


def test_the_same_command_again_changes_nothing(done: Path, cache: Path) -> None:
    before, (parents, nested) = outline(done), runs(done)
    run(SWEEP, done, cache)
    assert outline(done) == before
    again, again_nested = runs(done)
    assert [r.info.run_id for r in again] == [r.info.run_id for r in parents]
    assert {r.info.run_id for r in again_nested} == {r.info.run_id for r in nested}
    assert {r.info.run_id: r.data.metrics for r in again_nested} == {
        r.info.run_id: r.data.metrics for r in nested
    }


def test_production_training_uses_it_and_registers_a_champion(done: Path, cache: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    output = run([*TRAIN, "+best=smoke"], done, cache)
    assert "as champion" in output
    (base,) = (cache / "models").iterdir()
    model = AutoModelForCausalLM.from_pretrained(base)
    recipe = yaml.safe_load((done / "sweeps/best/smoke.yaml").read_text())["recipe"]
    with peft_on_transformers():
        adapted = PeftModel.from_pretrained(model, done / "runs/smoke/adapter")
    assert adapted.peft_config["default"].r == recipe["lora_rank"]

    again = run([*TRAIN, "recipe_from=models:/smoke@champion"], done, cache)
    assert "from models:/smoke@champion" in again


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_goes_on_to_the_same_end(
    done: Path,
    cache: Path,
    tmp_path: Path,
    how: signal.Signals,
    code: int,
    tell_fault: Callable[..., None],
) -> None:
    ended, seconds = start_and_stop(SWEEP, tmp_path, cache, lines=5, how=how)
    assert ended == code
    if how is not signal.SIGKILL:
        again = "go on with:\n  python -m sweep +experiment=smoke engine.slots=1"
        assert again in (tmp_path / "log").read_text()
    halfway = outline(tmp_path)
    output = run(SWEEP, tmp_path, cache)
    assert f"{len(halfway)} trials done before" in output
    expected, found = outline(done), outline(tmp_path)
    parents, nested = runs(tmp_path)
    names = Counter(run.data.tags["sweep.trial"] for run in nested)
    missing = expected_runs(found) - names.keys()
    lost, doubled = sum(one not in found for one in expected), len(found) - len(expected)
    tell_fault(
        injected=1,
        trials=(len(expected), lost, max(0, doubled)),
        runs=(len(names), len(missing), names.total() - len(names)),
        seconds=seconds,
    )
    assert found == expected
    assert (len(parents), names) == (1, Counter(expected_runs(found)))
    assert {r.info.status for r in nested} == {"FINISHED"}


def test_a_small_csv_is_searched_by_cross_validation_and_trained_whole(tmp_path: Path, cache: Path) -> None:
    run([sys.executable, "-m", "sweep.init", "."], tmp_path, cache)
    rows = ["data=own", "data.path=data/mine.csv", "data.max_rows=150", "budget.trials=5"]
    asked = ["validation=kfold", "scheduler=wilcoxon", "name=folds"]
    said = run([*SWEEP[:3], "+experiment=smoke", *rows, *asked], tmp_path, cache)
    assert "train in 5 folds, validation rows included" in said
    trials = outline(tmp_path)
    assert len(trials) == 5
    assert {*map(len, (values for *_, values in trials))} <= {3, 4, 5}
    best = yaml.safe_load((tmp_path / "sweeps/best/folds.yaml").read_text())["best"]
    values = trials[best["trial"]][3]
    assert best["folds"] == 5
    assert best["validation"]["value"] == pytest.approx(sum(values.values()) / 5)
    (command,) = re.findall(r"next   python -m (sweep\.train .*)", said)
    # The folds are in the configuration, whatever else is typed.
    typed = [word for word in command.split() if word not in asked[:2]]
    trained = run([sys.executable, "-m", *typed], tmp_path, cache)
    (pool,) = re.findall(r" train (\d+) ", said)
    assert f"{pool} rows to train on" in trained
    assert "found on other data or other splits" not in trained


def test_another_space_under_the_same_name_is_refused_with_the_differences(done: Path, cache: Path) -> None:
    output = run([*SWEEP, "space.lora_rank=choice(8,16)"], done, cache, code=2)
    assert "space.lora_rank: was" in output
    assert "name=smoke_2" in output


def test_two_drivers_of_one_study_do_not_mix(
    done: Path, cache: Path, tmp_path: Path, tell_fault: Callable[..., None]
) -> None:
    log = (tmp_path / "log").open("w")
    first = subprocess.Popen(SWEEP, cwd=tmp_path, env=environment(cache), stdout=log, stderr=log)
    try:
        while "data " not in (tmp_path / "log").read_text():
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        output = run(SWEEP, tmp_path, cache, code=2)
        assert f"process {first.pid}" in output
        assert first.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    finally:
        first.kill()
        first.wait()
        log.close()
    expected, found = outline(done), outline(tmp_path)
    lost, doubled = sum(one not in found for one in expected), len(found) - len(expected)
    tell_fault(injected=1, trials=(len(expected), lost, max(0, doubled)))
    assert found == expected
