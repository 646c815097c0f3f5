"""Every command, file, key and link of the documents holds.

A command is run, composed, or compared with the Makefile; what is none of these fails with its place.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep import init
from sweep.commands import run_command
from sweep.composition import compose_plain, groups
from sweep.config import compose
from sweep.grammar import spell_out
from sweep.search.space import Space
from sweep.types import Recipe
from tests.documents import (
    CONFIGURATION,
    EXTEND,
    PAGES,
    README,
    ROOT,
    Said,
    all_commands,
    blocks,
    keys,
    kind,
    parts,
    spans,
    write_rows,
)

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMANDS = all_commands()
# What configuration.md lists from here on is held to its script.
LISTS = CONFIGURATION.read_text(encoding="utf-8").splitlines().index("## Groups")
# What makes a real run small: any, and one that brings its own recipe.
SMALL = [
    "data.max_rows=250",
    "data.max_tokens=64",
    "evaluation.rows=8",
    "budget.minutes=null",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "confirm.rows=10",
    # What so few and so short rows fail.
    "audit.allow=[rows,intent_rows,truncated]",
]
SHORT = ["model=tiny_llama", "recipe.epochs=0.05", "budget.trials=3"]
# What a choice needs beside it.
COMPANIONS = {
    "backend=pool": ["backend.workers=2"],
    "backend=ray": ["backend.gpus_per_worker=0"],
    "data=own": ["data.path=tickets.jsonl"],
    "sampler=gp": ["scheduler=full"],
    "sampler=nsga2": ["scheduler=full", "budget.trials=9"],
    "objective=business": [
        "objective.goal=x",
        "objective.success={net_per_ticket_min: 0, resolved_min: 0, wrong_max: 1}",
    ],
}
COMPANIONS["objective=pareto"] = [*COMPANIONS["objective=business"], "scheduler=full"]


def of_kind(name: str, *, beside: Path | None = None) -> list[Any]:
    chosen = [said for said in COMMANDS if said.page != beside and kind(said) == name]
    return [pytest.param(said, id=str(said)) for said in chosen]


class TestCommands:
    @pytest.mark.parametrize("said", COMMANDS, ids=str)
    def test_each_is_of_a_kind_that_is_tested(self, said: Said) -> None:
        assert kind(said), (
            f"{said}: nothing tests such a command; teach tests/documents.py and tests/test_docs.py"
        )

    @pytest.mark.parametrize("said", of_kind("make"))
    def test_make_has_the_target(self, said: Said) -> None:
        target = said.text.removeprefix("make ")
        assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE)

    @pytest.mark.parametrize("said", of_kind("install"))
    def test_what_installs_is_what_make_does(self, said: Said) -> None:
        if said.text.startswith("git clone"):
            return
        recipe = MAKEFILE.replace("$(PYTHON)", "python3").replace("$(BIN)", ".venv/bin")
        recipe = recipe.replace("$(VENV)", ".venv").replace(" --quiet", "")
        assert f"\t{said.text}\n" in recipe

    @pytest.mark.parametrize("said", of_kind("script"))
    def test_a_script_writes_what_is_there(self, said: Said, tmp_path: Path) -> None:
        script = said.text.split()[-1]
        written = re.match(r'"""Writes (\S+\.\w+)', (ROOT / script).read_text(encoding="utf-8"))
        if not written:
            pytest.skip("it writes no file of its own")
        subprocess.run([sys.executable, ROOT / script, tmp_path / "target"], check=True)
        assert (tmp_path / "target").read_bytes() == (ROOT / script).with_name(written[1]).read_bytes()

    @pytest.mark.parametrize("said", of_kind("sweep", beside=EXTEND))
    def test_the_arguments_are_understood(
        self, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, arguments = parts(said)
        assert importlib.util.find_spec(module)
        monkeypatch.chdir(tmp_path)
        if module == "sweep.init":
            assert init.init(arguments) == 0
            return
        init.write(Path())
        best = Path("sweeps/best")
        best.mkdir(parents=True)
        for name in [argument.removeprefix("+best=") for argument in arguments if "+best=" in argument]:
            (best / f"{name}.yaml").write_text("# @package _global_\nbest: {study: mine}\n")
        if {"--cfg", "--help"} & set(arguments):
            assert run_command(module, arguments, lambda config: 1) == 0
        elif arguments:
            compose(arguments)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands were typed, top down."""
    folder = tmp_path_factory.mktemp("readme")
    write_rows(folder)
    for number, said in enumerate(said for said in COMMANDS if said.page == README and kind(said) == "sweep"):
        module, arguments = parts(said)
        command = [sys.executable, "-m", module, *smaller(module, arguments, number)]
        result = subprocess.run(
            command,
            cwd=folder / said.folder,
            env={**os.environ, "SWEEP_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, f"{said}\n{shlex.join(command)}\n{result.stdout}{result.stderr}"
    return folder


@pytest.mark.smoke
class TestReadme:
    def test_its_commands_leave_what_it_says(self, typed: Path) -> None:
        for path in ("sweep.db", "mlflow.db", "sweeps/best/support_bot.yaml", "runs/support_bot/adapter"):
            assert (typed / path).exists(), path

    @pytest.mark.parametrize("said", of_kind("ui")[:1])
    def test_mlflow_shows_what_they_left(self, said: Said, typed: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = str(Path(sys.executable).with_name("mlflow"))
        command = [program, *shlex.split(said.text)[1:], "--port", str(port), "--workers", "1"]
        with (typed / "ui.log").open("w") as log:
            server = subprocess.Popen(command, cwd=typed, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None, (typed / "ui.log").read_text()
                assert time.monotonic() < until, (typed / "ui.log").read_text()
                time.sleep(0.2)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)


def smaller(module: str, arguments: list[str], number: int) -> list[str]:
    """The arguments for a run of seconds, of a study of its own where they change what is searched."""
    if module not in ("sweep", "sweep.train"):
        return arguments
    given = [re.sub(r"^(recipe_from=models:/\w+)/\d+$", r"\1/1", argument) for argument in arguments]
    short = [] if any(argument.startswith("recipe_from=") for argument in given) else SHORT
    changed = [argument for argument in given if not argument.startswith(("+", "name=", "recipe_from="))]
    named = any(argument.startswith("name=") for argument in given)
    name = [f"name=variant_{number}"] if module == "sweep" and changed and not named else []
    return [*given, *SMALL, *short, *name]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def mentioned() -> list[Said]:
    """The `key=value` of all pages, each once."""
    written = [said for page in PAGES for said in spans(page) if page != CONFIGURATION or said.line < LISTS]
    found = [said for said in written if re.fullmatch(r"[+~]*[a-z_]+(?:\.\w+)*=\S*", said.text)]
    return [*{said.text: said for said in reversed(found)}.values()][::-1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A composed configuration."""
    return compose_plain(["+experiment=smoke"], tmp_path_factory.mktemp("empty")).plain


@pytest.mark.parametrize("said", mentioned(), ids=str)
def test_each_key_that_is_mentioned_is_one(
    said: Said, plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key, _, value = said.text.lstrip("+~").partition("=")
    known = {*keys(plain), *groups(), *(f"space.{field.name}" for field in fields(Recipe))}
    added = said.text.startswith("+") and key.partition(".")[0] in plain
    assert key in known or added
    if not value or re.search(r"[<>]|\.\.\.|NAME", value) or key in ("best", "recipe_from"):
        return
    searched = [f"~space.{name}" for name in plain["space"] if key == f"recipe.{name}"]
    experiment = [] if key == "experiment" else ["+experiment=smoke"]
    compose([*experiment, said.text, *COMPANIONS.get(said.text, []), *searched])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_row_of_a_table_stands_below_its_header(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert not rows or re.fullmatch(r"[|: -]+", rows[1]), rows[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            ]


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"line {block.line}") for block in blocks(README) if block.language == "yaml"],
)
def test_each_yaml_of_the_readme_is_a_space_or_an_experiment(block: Any, tmp_path: Path) -> None:
    if block.text.startswith("# @package _global_"):
        init.write(tmp_path)
        (tmp_path / "conf/experiment/shown.yaml").write_text(block.text, encoding="utf-8")
        compose(["+experiment=shown"], working_directory=tmp_path)
    else:
        node = yaml.safe_load(block.text)
        space = Space.from_mapping({name: spell_out(name, form) for name, form in node.items()})
        assert [parameter.name for parameter in space.parameters] == list(node)
