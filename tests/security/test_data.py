"""Rows are text: nothing in them commands a terminal, a page, a table or a path."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sweep.audit import run as audit
from sweep.commands import run_command
from sweep.data.audit.finding import Audited, Finding, Row
from sweep.evaluation.confirmation import Simpler
from sweep.reporting.console import Transcript, tell_baselines, tell_findings
from sweep.types import Score, Verdict

# Clears the screen, sets the title, writes the clipboard, a C1 sign, goes back, turns the direction.
ESCAPE = "\x1b[2J\x1b]0;pwned\x07\x1b]52;c;cm0=\x07\x9b2J\rok\b\b\u202egnp.exe"
MARKUP = "[red]wrong[/red] [/]"
OWN = ["+experiment=smoke", "engine=synthetic", "data=own"]


def commanding(text: str) -> list[str]:
    """The signs in the text that a terminal obeys, but line ends and tabs."""
    return [sign for sign in text if (not sign.isprintable() and sign not in "\n\t")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestTerminal:
    def test_the_names_of_columns_command_no_terminal(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[f"{ESCAPE}prompt", "answered"], ["q", "a"]])
        assert run_command("sweep.audit", [*OWN, "data.path=rows.csv"], audit) == 2
        said = capsys.readouterr()
        assert "prompt" in said.err
        assert commanding(said.out + said.err) == []

    @pytest.mark.parametrize(
        "rows",
        [
            [{"id": "ESC", "prompt": "q", "response": "a"}] * 2,
            [{"id": "ESC", "prompt": "q", "response": 5}],
            [{"id": "1", "messages": [{"role": "ESC", "content": "a"}]}],
            [{"id": "1", "messages": "ESC"}],
            ["ESC"],
        ],
    )
    def test_cells_that_are_refused_command_no_terminal(
        self, rows: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = "\n".join(json.dumps(row) for row in rows).replace("ESC", json.dumps(ESCAPE)[1:-1])
        (folder / "rows.jsonl").write_text(text)
        given = [*OWN, "data.path=rows.jsonl", "data.id_column=id"]
        assert run_command("sweep.audit", given, audit) == 2
        said = capsys.readouterr()
        assert commanding(said.out + said.err) == []

    def test_rows_that_an_audit_shows_command_no_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        verdict = Verdict(
            check="repeats", passed=False, severity="fail", value=1.0, limit=0.0, message=f"{ESCAPE}{MARKUP}"
        )
        rows = (Row(f"{ESCAPE}1", f"{ESCAPE}{MARKUP}"),)
        finding = Finding(verdict=verdict, bound="at most 0", rows=rows, count=1, mend="")
        tell_findings(Transcript(), Audited(findings=(finding,), allowed=()))
        said = capsys.readouterr().out
        assert commanding(said) == []
        assert said.count("[red]wrong[/red]") == 2

    def test_names_and_descriptions_of_ways_command_no_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from sweep.evaluation.objective import Loss

        score = Score(value=1.0, standard_error=0.1, examples=10)
        name = description = f"{MARKUP}{ESCAPE}"
        way = Simpler(name=name, description=description, confirm=score, test=None, succeeds=False)
        tell_baselines(Transcript(), [way], Loss(rung_metric="loss"))
        said = capsys.readouterr().out
        assert commanding(said) == []
        assert said.count("[red]wrong[/red]") == 2

    def test_an_experiments_purpose_commands_no_terminal(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "conf/experiment").mkdir(parents=True)
        (folder / "conf/experiment/mine.yaml").write_text(
            f"# @package _global_\n# Mine {ESCAPE}\nname: mine\n", newline=""
        )
        assert run_command("sweep", ["--help"], lambda config: 1) == 0
        said = capsys.readouterr().out
        assert "mine               Mine" in said
        assert commanding(said) == []


def test_line_ends_and_other_scripts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Transcript().say("Grüße,\n你好 🙂 \u00a0“ok”")
    assert capsys.readouterr().out == "Grüße,\n你好 🙂 \u00a0“ok”\n"
