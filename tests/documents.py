"""What the documents say: their fenced blocks, the files and commands that they show, each with its place."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sweep.paths import packaged_root

ROOT = packaged_root()
README = ROOT / "README.md"
EXTEND = ROOT / "docs/extend.md"
CONFIGURATION = ROOT / "docs/configuration.md"
PAGES = sorted([README, *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*/README.md")])

_PROGRAM = re.compile(r"(?:\.venv/bin/)?(?:python3?|pip|make|mlflow|git|pytest|docker|hf|cd)\s")
_KINDS = {
    "sweep": re.compile(r"(?:\.venv/bin/)?python (?:-P )?-m (sweep(?:\.\w+)?)(?: (.*))?"),
    "script": re.compile(r"(?:\.venv/bin/)?python ((?:data|docs)/\S+\.py)"),
    "make": re.compile(r"make (\w+)"),
    "ui": re.compile(r"mlflow (ui .+)"),
    "install": re.compile(
        r"git clone <this repository> && cd sweep|python3 -m venv .+|\.venv/bin/python -m pip .+"
    ),
}
# What a person puts there.
_FILLED = (
    (r"=(NAME|X)\b", "=support_bot"),
    (r"\[?\bFOLDER\b\]?", "their_folder"),
    (r"\[KEY=VALUE \.\.\.\]", ""),
)
# The line above a fenced block that holds a file: `conf/metric/mine.yaml`, and what may be said of it:
_TITLE = re.compile(r"`([^`]+\.\w+)`[^`]*:")


class Block(NamedTuple):
    """A fenced block. line: its first one's number. title: the file that it holds, if it holds one."""

    page: Path
    line: int
    language: str
    title: str | None
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The block as a file."""
        return "\n".join(self.lines) + "\n"

    @property
    def commands(self) -> bool:
        """Whether it begins with a program, so that each of its lines is to be typed."""
        return not self.title and bool(_PROGRAM.match(self.text))


class Said(NamedTuple):
    """A text in code and where it stands. folder: where it is to be typed, after the block's `cd`."""

    page: Path
    line: int
    text: str
    folder: str = "."

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        above = next((line for line in reversed(lines[:start]) if line.strip()), "")
        title = _TITLE.match(above)
        yield Block(
            page=page,
            line=start + 2,
            language=lines[start].removeprefix("```").strip(),
            title=title[1] if title else None,
            lines=tuple(lines[start + 1 : end]),
        )


def files(page: Path) -> dict[str, str]:
    """The files that a page shows, by path."""
    return {block.title: block.text for block in blocks(page) if block.title}


def spans(page: Path) -> Iterator[Said]:
    """The inline code of a page, tables included."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fenced ^= line.startswith("```")
        if not fenced:
            yield from (
                Said(page, number, code.replace("\\|", "|")) for code in re.findall(r"`([^`]+)`", line)
            )


def commands(page: Path) -> list[Said]:
    """What the page tells to type, top down: blocks that begin with a program, and inline code that does."""
    found = [said for said in spans(page) if _PROGRAM.match(said.text)]
    for block in blocks(page):
        folder = "."
        for number, line in enumerate(block.lines if block.commands else (), start=block.line):
            if line.startswith("cd "):
                folder = line.removeprefix("cd ").strip()
            elif line.strip():
                found.append(Said(page, number, line.strip(), folder))
    return sorted(found, key=lambda said: said.line)


def outputs(page: Path) -> dict[str, tuple[str, ...]]:
    """By command, the lines that the block after it shows as printed."""
    shown: dict[str, tuple[str, ...]] = {}
    asked = ""
    for block in blocks(page):
        if asked and not (block.commands or block.title or block.language):
            shown[asked] = block.lines
        asked = block.text.strip() if block.commands else ""
    return shown


def all_commands() -> list[Said]:
    """The commands of all pages, each once, where it stands first."""
    found = [said for page in PAGES for said in commands(page)]
    return [*{said.text: said for said in reversed(found)}.values()][::-1]


def kind(said: Said) -> str | None:
    """Which sort of command it is; None for one that no test knows."""
    return next((name for name, pattern in _KINDS.items() if pattern.fullmatch(said.text)), None)


def parts(said: Said) -> tuple[str, list[str]]:
    """The module and the arguments of a command of the product, placeholders filled in."""
    found = _KINDS["sweep"].fullmatch(said.text)
    assert found
    arguments = found[2] or ""
    for placeholder, value in _FILLED:
        arguments = re.sub(placeholder, value, arguments)
    return found[1], shlex.split(arguments)


def write_rows(folder: Path) -> None:
    """Data of one's own in the files that the pages name."""
    shipped = (ROOT / "data/support_bot/support_bot.jsonl").read_text(encoding="utf-8").splitlines()[:250]
    rows = [json.loads(line)["messages"] for line in shipped]
    lines = [json.dumps({"messages": messages}) for messages in rows]
    (folder / "tickets.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with (folder / "tickets.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question", "answer"])
        writer.writerows((messages[0]["content"], messages[1]["content"]) for messages in rows)


def keys(node: Mapping[str, object], prefix: str = "", *, leaves: bool = False) -> Iterator[str]:
    """The dotted keys of a mapping and of those in it; only the innermost, with `leaves`."""
    for name, value in node.items():
        path = f"{prefix}{name}"
        inner = value if isinstance(value, dict) else {}
        if not (inner and leaves):
            yield path
        yield from keys(inner, f"{path}.", leaves=leaves)
