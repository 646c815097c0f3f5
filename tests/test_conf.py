"""Every file of `conf` and `sweeps` composes, says what it is for and explains its keys."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sweep.composition import groups
from sweep.config import compose
from sweep.paths import packaged_root

ROOT = packaged_root()
FILES = sorted(file for root in ("conf", "sweeps") for file in (ROOT / root).rglob("*.yaml"))
WRITTEN_BY_HAND = [file for file in FILES if file.parent.name != "best"]
# An experiment's keys are explained where their defaults are.
DEFAULTS = [file for file in WRITTEN_BY_HAND if file.parent.name != "experiment"]
# What a choice needs beside it.
COMPANIONS = {
    "backend=pool": ["backend.workers=2"],
    "backend=ray": ["backend.gpus_per_worker=0"],
    "data=own": ["data.path=rows.jsonl"],
    "sampler=gp": ["scheduler=full"],
    "scheduler=wilcoxon": ["validation=kfold"],
    "validation=kfold": ["scheduler=full"],
    "sampler=nsga2": ["scheduler=full", "budget.trials=9"],
    "objective=business": [
        "objective.goal=fewer tickets",
        "objective.success={net_per_ticket_min: 0.5, resolved_min: 0.5, wrong_max: 0.1}",
    ],
}
COMPANIONS["objective=pareto"] = [*COMPANIONS["objective=business"], "scheduler=full"]


def choices() -> list[str]:
    return [f"{group}={name}" for group, names in groups(ROOT).items() for name in names]


@pytest.mark.parametrize("choice", choices())
def test_each_file_composes(choice: str, tmp_path: Path) -> None:
    alone = choice.startswith(("experiment", "best"))
    overrides = [f"+{choice}"] if alone else ["+experiment=smoke", choice]
    if choice.startswith("best"):
        overrides.append("+experiment=smoke")
    config = compose([*overrides, *COMPANIONS.get(choice, [])], working_directory=tmp_path)
    config.sampler.build(seed=0)
    config.scheduler.build()
    config.model.build()
    config.objective.build()


def test_no_file_is_left_out() -> None:
    assert len(choices()) == len(FILES) - 1, "conf/config.yaml and the files of groups"
    assert len(WRITTEN_BY_HAND) == 51


@pytest.mark.parametrize("file", WRITTEN_BY_HAND, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_each_file_says_what_it_is_for(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    if file.parent.name == "experiment":
        assert lines.pop(0) == "# @package _global_"
    assert re.fullmatch(r"# [A-Z].*[.:]", lines[0])
    assert lines[1] == ""


@pytest.mark.parametrize("file", DEFAULTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_each_default_is_explained(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        key = re.match(r"\s*(\w+): *\S", line)
        if key and key[1] != "_target_":
            assert before.strip().startswith("#"), f"{key[1]} has no comment"


def test_both_objectives_that_read_replies_know_a_handover_by_the_same_words() -> None:
    read = [
        yaml.safe_load((ROOT / f"conf/objective/{name}.yaml").read_text()) for name in ("business", "metric")
    ]
    assert read[0]["escalation"] == read[1]["escalation"]


def test_each_experiment_names_itself_as_its_file(tmp_path: Path) -> None:
    for name in groups(ROOT)["experiment"]:
        assert compose([f"+experiment={name}"], working_directory=tmp_path).experiment == name


def test_the_working_directory_may_be_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert compose(["+experiment=smoke"]).experiment == "smoke"
