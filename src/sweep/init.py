"""`python -m sweep.init [FOLDER]`: an experiment of one's own to fill in, with rows to try it on."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from shlex import quote

from sweep.commands import answer
from sweep.errors import ConfigError
from sweep.paths import packaged_root

ROWS = 600

_STARTER = Path(__file__).with_name("starter")
_GITIGNORE = _STARTER / "gitignore"
_USAGE = """\
python -m sweep.init [FOLDER]

Writes a commented experiment, conf/experiment/mine.yaml, 600 example rows, data/mine.csv, and a .gitignore
into FOLDER, made if it is absent; without FOLDER into the current one. Overwrites nothing: a .gitignore
that is there stays as it is, and what it lacks is printed.
"""


def init(arguments: Sequence[str]) -> int:
    """Write the starter files; the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(_USAGE, end="")
        return 0
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise ConfigError(
            f"{' '.join(arguments)}: one folder at most must stand here. Write python -m sweep.init FOLDER, "
            "in quotes if its name holds a space."
        )
    folder = Path(*arguments).expanduser()
    written = write(folder)
    for path in written:
        print(f"wrote  {path}")
    if (ignored := folder / ".gitignore") not in written:
        lacking = _lacking(ignored)
        added = "; add what a sweep leaves:" if lacking else ""
        print("\n       ".join([f"kept   {ignored}, as it is{added}", *lacking]))
    print("next   " + ("" if folder.resolve() == Path.cwd() else f"cd {quote(str(folder))}\n       "), end="")
    print("python -m sweep +experiment=mine")
    return 0


def write(folder: Path) -> list[Path]:
    """The files written below the folder, without a .gitignore that is there.

    Raises ConfigError, before writing any, if another is there already.
    """
    contents = {
        folder / "conf" / "experiment" / "mine.yaml": (_STARTER / "mine.yaml").read_text("utf-8"),
        folder / "data" / "mine.csv": _rows(),
    }
    for path in contents:
        if path.exists():
            raise ConfigError(
                f"{path}: is there already; nothing is overwritten. Move it away, or name another folder: "
                "python -m sweep.init FOLDER."
            )
    # The root of a repository has one, and it must be possible to begin there.
    if not (folder / ".gitignore").exists():
        contents[folder / ".gitignore"] = _GITIGNORE.read_text("utf-8")
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror}; the folder must be writable. Mend that, or name "
            "another folder: python -m sweep.init FOLDER."
        ) from error
    return list(contents)


def _lacking(path: Path) -> list[str]:
    """The lines of the starter's .gitignore that this one does not hold."""
    there = {line.strip() for line in path.read_text("utf-8", errors="replace").splitlines()}
    ours = _GITIGNORE.read_text("utf-8").splitlines()
    return [line for line in ours if not line.startswith("#") and line not in there]


def _rows() -> str:
    """The shipped data's first conversations of one question and one answer, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prompt", "response"])
    writer.writerows(islice(_questions_and_answers(), ROWS))
    return text.getvalue()


def _questions_and_answers() -> Iterator[tuple[str, str]]:
    shipped = packaged_root() / "data" / "support_bot" / "support_bot.jsonl"
    with shipped.open(encoding="utf-8") as lines:
        for line in lines:
            turns = [turn["content"] for turn in json.loads(line)["messages"]]
            if len(turns) == 2:
                yield turns[0], turns[1]


if __name__ == "__main__":
    sys.exit(answer("sweep.init", sys.argv[1:], init))
