"""Every file and command of docs/extend.md works in a folder of one's own."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.__main__ import sweep
from sweep.commands import run_command
from sweep.config import compose
from sweep.engines.model import RandomLlama
from sweep.tracking.best import read_best
from tests.documents import EXTEND, Said, commands, files, outputs, parts, write_rows

COMMANDS = commands(EXTEND)
# For the one that trains.
SMALL = [
    "data.max_rows=250",
    "data.max_tokens=64",
    "evaluation.rows=8",
    "recipe.epochs=0.05",
    "budget.trials=2",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory that the page describes, with rows."""
    folder = tmp_path_factory.mktemp("my_project")
    for path, text in files(EXTEND).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    write_rows(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("SWEEP_CACHE", str(folder / "cache"))
        yield folder


def typed_in_process(said: Said, *small: str) -> str:
    """What a sweep of docs/extend.md prints."""
    module, arguments = parts(said)
    assert module == "sweep"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run_command(module, [*arguments, *small], sweep) == 0, str(said)
    return output.getvalue()


@pytest.fixture(scope="module")
def printed(project: Path) -> dict[str, str]:
    """What each command of docs/extend.md printed; the one that trains is made small."""
    base = RandomLlama(hidden_size=32, layers=1, heads=2, seed=0, dtype="float32").load()
    base.model.save_pretrained(project / "models/ours")
    base.tokenizer.save_pretrained(project / "models/ours")
    small = {"model=ours": SMALL}
    return {said.text: typed_in_process(said, *small.get(said.text.split()[-1], [])) for said in COMMANDS}


def test_its_parts_work_together(project: Path) -> None:
    """The last command, which chooses the page's data, space, engine and metric."""
    assert "250 rows of tickets.csv" in typed_in_process(COMMANDS[-1], "budget.trials=2")
    best = read_best(Path("sweeps/best/bakery.yaml"))
    assert best.confirm.metrics["worst_row"] == pytest.approx(best.confirm.value)
    assert best.confirm.metrics.keys() == {"perplexity", "worst_row"}


@pytest.mark.parametrize("said", COMMANDS, ids=str)
def test_each_command_composes(said: Said, project: Path) -> None:
    compose(parts(said)[1])


def test_its_files_are_all_asked_for(project: Path) -> None:
    words = {word for said in COMMANDS for word in re.split(r"[ =,'\[\]]", said.text)}
    assert {Path(path).stem for path in files(EXTEND)} <= words


@pytest.mark.smoke
def test_its_commands_print_what_it_shows(printed: dict[str, str]) -> None:
    shown = outputs(EXTEND)
    assert shown.keys() <= printed.keys()
    for command, lines in shown.items():
        for line in lines:
            assert line in printed[command]


@pytest.mark.smoke
@pytest.mark.usefixtures("printed")
def test_each_leaves_what_it_says() -> None:
    assert "worst_row" in read_best(Path("sweeps/best/worst.yaml")).confirm.metrics
    polite = read_best(Path("sweeps/best/polite.yaml")).confirm
    assert polite.value == pytest.approx(polite.metrics["polite"])
    brief = read_best(Path("sweeps/best/brief.yaml")).confirm
    assert brief.value <= brief.metrics["resolved"]
    assert read_best(Path("sweeps/best/today.yaml")).baselines.keys() == {"nearest", "hand_over"}
    assert 3e-4 < read_best(Path("sweeps/best/parabola.yaml")).recipe.learning_rate < 3e-3
    assert read_best(Path("sweeps/best/ours.yaml")).model["path"] == "models/ours"


def test_a_class_that_nobody_trusts_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sweep", ["+experiment=smoke", "engine=parabola"], sweep) == 2
    assert "write trusted_targets=[your.module] on the command line" in capsys.readouterr().err
