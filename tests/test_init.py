"""`python -m sweep.init`: files that run as they are, and nothing of the user's is touched."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

from sweep.commands import answer
from sweep.config import compose
from sweep.data.load import load
from sweep.data.split import split
from sweep.init import ROWS, init

WRITTEN = ("conf/experiment/mine.yaml", "data/mine.csv", ".gitignore")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return answer("sweep.init", arguments, init)


def test_it_says_what_it_wrote_and_what_comes_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my tuning") == 0
    said = capsys.readouterr().out
    for name in WRITTEN:
        assert f"wrote  my tuning/{name}\n" in said
        assert (folder / "my tuning" / name).is_file()
    assert said.endswith("next   cd 'my tuning'\n       python -m sweep +experiment=mine\n")


def test_without_a_folder_it_writes_into_the_current_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert capsys.readouterr().out.endswith("next   python -m sweep +experiment=mine\n")
    assert all((folder / name).is_file() for name in WRITTEN)


@pytest.mark.parametrize("there", WRITTEN[:2])
def test_a_file_that_is_there_stays_as_it_is_and_nothing_else_is_written(
    there: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / there).parent.mkdir(parents=True, exist_ok=True)
    (folder / there).write_text("mine")
    assert run() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{there}: is there already; nothing is overwritten. Move it away, or name")
    assert (folder / there).read_text() == "mine"
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / there]


@pytest.mark.parametrize(
    ("there", "lacking"),
    [
        ("", "runs/ mlflow.db* mlruns/ mlartifacts/ sweep.db*"),
        ("*.pyc\nruns/\n  mlflow.db*", "mlruns/ mlartifacts/ sweep.db*"),
        ("\xff/\nruns/\n", "mlflow.db* mlruns/ mlartifacts/ sweep.db*"),
        ("sweep.db*\nmlartifacts/\nmlruns/\nmlflow.db*\nruns/\n", ""),
    ],
)
def test_a_gitignore_stays_as_it_is_and_what_it_lacks_is_told(
    there: str, lacking: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".gitignore").write_bytes(there.encode("latin-1"))
    assert run() == 0
    said = capsys.readouterr().out
    kept = said[said.index("kept   ") : said.index("next   ")]
    heading = "kept   .gitignore, as it is" + ("; add what a sweep leaves:" if lacking else "")
    assert kept.splitlines() == [heading, *(f"       {line}" for line in lacking.split())]
    assert "wrote  .gitignore" not in said
    assert (folder / ".gitignore").read_bytes() == there.encode("latin-1")
    assert all((folder / name).is_file() for name in WRITTEN)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "b"], "a b: one folder at most must stand here. Write python -m sweep.init FOLDER"),
        (["--force"], "--force: one folder at most"),
        (
            ["taken"],
            "taken/conf/experiment: Not a directory; the folder must be writable. Mend that, or name",
        ),
    ],
)
def test_a_mistake_is_named_with_its_cure(
    arguments: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "taken").touch()
    assert run(*arguments) == 2
    assert told in capsys.readouterr().err


def test_help_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert capsys.readouterr().out.startswith("python -m sweep.init [FOLDER]\n")
    assert not any(folder.iterdir())


def test_the_experiment_asks_for_as_much_work_as_support_bot(folder: Path) -> None:
    run()
    ours, shipped = (compose([f"+experiment={name}"]) for name in ("mine", "support_bot"))
    assert ours.experiment == "mine"
    assert ours.budget == shipped.budget
    assert (ours.evaluation.rows, ours.evaluation.least_rows) == (24, shipped.evaluation.least_rows)
    assert shipped.evaluation.rows == 24
    assert (ours.confirm.top_k, ours.confirm.seeds) == (shipped.confirm.top_k, shipped.confirm.seeds)
    assert ours.space == shipped.space
    assert [str(target) for target in (ours.model, ours.engine, ours.scheduler)] == [
        str(target) for target in (shipped.model, shipped.engine, shipped.scheduler)
    ]
    train_rows = [
        len(split(load(config.data), config.data.split, seed=0).examples["train"])
        for config in (ours, shipped)
    ]
    horizons = [config.recipe.epochs * rows for config, rows in zip((ours, shipped), train_rows, strict=True)]
    assert horizons == pytest.approx([84, 84], abs=1)


def test_the_rows_are_the_shipped_ones_and_always_the_same(folder: Path) -> None:
    run("one")
    run("two")
    assert (folder / "one/data/mine.csv").read_bytes() == (folder / "two/data/mine.csv").read_bytes()
    with (folder / "one/data/mine.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == ROWS == 600
    assert list(rows[0]) == ["prompt", "response"]
    assert all(cell.strip() for row in rows for cell in row.values())


def test_each_key_of_the_experiment_is_explained(folder: Path) -> None:
    run()
    lines = (folder / "conf/experiment/mine.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert re.fullmatch(r"# [A-Z].*\.", lines[1])
    assert max(map(len, lines)) <= 110
    for before, line in pairwise(lines):
        if re.match(r"(# )? *(- override |[a-z_]+: *\S)", line):
            assert re.match(r"(# )? *#", before), f"{line} has no comment"


def test_what_is_commented_out_is_valid_when_it_counts(folder: Path) -> None:
    run()
    file = folder / "conf/experiment/mine.yaml"
    text = file.read_text(encoding="utf-8").replace("override /model: smollm2_135m", "override /model: hub")
    for key in ("system_prompt", "max_rows", "model", "  path", "lora_alpha", "space", "  lora_dropout"):
        assert text.count(f"# {key}: ") + text.count(f"# {key}:\n") == 1
        text = text.replace(f"# {key}:", f"{key}:")
    file.write_text(text, encoding="utf-8")
    config = compose(["+experiment=mine"])
    assert config.model.arguments["path"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert config.data.system_prompt == "You are a support assistant."
    assert config.data.max_rows == 1000
    assert "lora_dropout" in config.space.to_mapping()


def test_what_a_sweep_leaves_is_ignored(folder: Path) -> None:
    run()
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert {"runs/", "mlflow.db*", "mlruns/", "sweep.db*"} <= set(ignored)
