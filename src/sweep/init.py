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

ROWS = 300

_USAGE = """\
python -m sweep.init [FOLDER]

Writes a commented experiment, conf/experiment/mine.yaml, 300 example rows, data/mine.csv, and a .gitignore
into FOLDER, made if it is absent; without FOLDER into the current one. Overwrites nothing.
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
    for path in write(folder):
        print(f"wrote  {path}")
    print("next   " + ("" if folder.resolve() == Path.cwd() else f"cd {quote(str(folder))}\n       "), end="")
    print("python -m sweep +experiment=mine")
    return 0


def write(folder: Path) -> list[Path]:
    """The files written below the folder. Raises ConfigError, before writing any, if one is there already."""
    starter = Path(__file__).with_name("starter")
    contents = {
        folder / "conf" / "experiment" / "mine.yaml": (starter / "mine.yaml").read_text("utf-8"),
        folder / "data" / "mine.csv": _rows(),
        folder / ".gitignore": (starter / "gitignore").read_text("utf-8"),
    }
    for path in contents:
        if path.exists():
            raise ConfigError(
                f"{path}: is there already; nothing is overwritten. Move it away, or name another folder: "
                "python -m sweep.init FOLDER."
            )
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
