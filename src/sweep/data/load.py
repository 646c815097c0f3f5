"""Examples from a JSONL, CSV or Parquet file or a Hub data set, each row checked."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from sweep.errors import DataError

Role = Literal["system", "user", "assistant"]

ENDINGS = (".jsonl", ".csv", ".parquet")
PROMPT_COLUMNS = ("prompt", "question", "instruction", "input")
RESPONSE_COLUMNS = ("response", "answer", "output", "completion")
ROWS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One conversation that ends with the assistant's reference answer.

    required, forbidden: phrases that an answer must, must not hold. slices: what the row is
    reported by, column to value.
    """

    id: str
    messages: tuple[Message, ...]
    intent: str | None
    required: tuple[str, ...]
    forbidden: tuple[str, ...]
    slices: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """All turns before the answer, one after the other, without the system prompt."""
        return "\n".join(turn.content for turn in self.messages[:-1] if turn.role != "system")

    @property
    def response(self) -> str:
        """The reference answer."""
        return self.messages[-1].content


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Shares of the rows, each above 0, together 1.

    group_similarity: rows stay in one split where their prompts' sets of five-character pieces
    overlap by this much (Jaccard, above 0 up to 1).
    """

    train: float
    validation: float
    confirm: float
    test: float
    golden: float
    group_similarity: float

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.confirm, self.test, self.golden)
        if not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise DataError(
                f"data.split: the shares train, validation, confirm, test, golden are {shares}, together "
                f"{sum(shares):.4g}; each must be above 0, and their sum 1. Change data.split.train."
            )
        if not 0 < self.group_similarity <= 1:
            raise DataError(
                f"data.split.group_similarity={self.group_similarity}: must be above 0 and at most 1, "
                "where only prompts with the same pieces are grouped. Set it to 0.8 if in doubt."
            )


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the rows are and which columns hold what: the `data` config.

    path: a file ending in .jsonl, .csv or .parquet, looked for in the working directory, then in
    the packaged files; or a Hub data set, "org/name" or "hub:org/name", of which `hub_split` is
    read. Columns that are None are found by their usual names, or left out. system_prompt: for
    rows that have none. max_rows: the first ones.
    """

    path: str
    hub_split: str
    messages_column: str | None
    prompt_column: str | None
    response_column: str | None
    id_column: str | None
    intent_column: str | None
    required_column: str | None
    forbidden_column: str | None
    slice_columns: tuple[str, ...]
    system_prompt: str | None
    max_tokens: int
    max_rows: int | None
    split: SplitShares


class _Row(NamedTuple):
    """One row's cells and the line or row number by which its owner finds it."""

    place: str
    cells: Mapping[str, object]


class _Layout(NamedTuple):
    """The column with conversations, or else the two that hold prompt and response."""

    messages: str | None
    prompt: str
    response: str


def packaged_root() -> Path:
    """The folder of `conf`, `sweeps` and `data`: `sweep/_packaged`, or an editable install's repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_packaged"
    return packaged if packaged.is_dir() else package.parents[1]


def load(source: DataSource) -> tuple[Example, ...]:
    """The source's rows, in order, with distinct ids ("row-1" and on where there is no id column).

    Line ends inside a text become "\\n", so that a model doesn't learn a file's line ends. Raises
    DataError that names the path, up to three rows, and what to do.
    """
    if source.max_rows is not None and source.max_rows < 1:
        raise DataError(f"data.max_rows={source.max_rows}: must be at least 1. Set null to read every row.")
    rows = _hub_rows(source) if _on_hub(source.path) else _file_rows(source)
    if not rows:
        raise DataError(
            f"data.path={source.path}: there are no rows; at least one must be there. Give another file."
        )
    layout = _layout(source, rows)
    examples: list[Example] = []
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            examples.append(_example(source, layout, row=row, number=number))
        except DataError as error:
            problems.append(f"{row.place}, {error}")
    _refuse(source.path, problems)
    _refuse(source.path, _repeated_ids(source, rows, examples))
    return tuple(examples)


def _refuse(path: str, problems: Sequence[str]) -> None:
    if not problems:
        return
    noun = "row" if len(problems) == 1 else "rows"
    more = len(problems) - ROWS_SHOWN
    shown = [*problems[:ROWS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    raise DataError("\n  ".join([f"data.path={path}: {len(problems)} {noun} can't be used.", *shown]))


# Reading


def _on_hub(path: str) -> bool:
    if path.startswith("hub:"):
        return True
    # A name with a dot or in a folder that is there is more likely a mistyped file.
    here = any((root / path).exists() or (root / path).parent.is_dir() for root in _roots())
    return not here and re.fullmatch(r"[\w-]+/[\w-]+", path) is not None


def _roots() -> tuple[Path, Path]:
    return Path.cwd(), packaged_root()


def _hub_rows(source: DataSource) -> list[_Row]:
    import datasets

    name = source.path.removeprefix("hub:")
    try:
        table = datasets.load_dataset(name, split=source.hub_split)
        rows = table if source.max_rows is None else table.take(min(source.max_rows, len(table)))
        return [_Row(f"row {number}", cells) for number, cells in enumerate(rows, start=1)]
    except Exception as error:
        raise DataError(
            f"data.path={source.path}, data.hub_split={source.hub_split}: the Hub gave no rows "
            f"({type(error).__name__}: {error}). Check the name and the split; log in with `hf auth login` "
            "for a gated data set; without a network, save it as a .parquet file and set data.path to that."
        ) from error


def _file_rows(source: DataSource) -> list[_Row]:
    path = _locate(source.path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(
            f"data.path={source.path}: the ending is {path.suffix or 'missing'}; must be one of "
            f"{_listed(ENDINGS)}. Convert the file, or write hub:org/name for a data set on the Hub."
        )
    if path.stat().st_size == 0:
        raise DataError(f"data.path={source.path}: the file is empty; must hold rows. Give another file.")
    if ending == ".parquet":
        return _parquet_rows(source, path)
    text = _text(source, path)
    return _json_rows(source, text) if ending == ".jsonl" else _csv_rows(source, text)


def _locate(path: str) -> Path:
    tried = [root / Path(path).expanduser() for root in _roots()]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is not None:
        return found
    folder = next((candidate for candidate in tried if candidate.is_dir()), None)
    if folder is not None:
        raise DataError(
            f"data.path={path}: {folder} is a folder; must be a file. {_nearest_file(folder / 'data')}"
        )
    folder = next((candidate.parent for candidate in tried if candidate.parent.is_dir()), None)
    cure = (
        f"The folder {tried[0].parent} isn't there either."
        if folder is None
        else _nearest_file(folder / tried[0].name)
    )
    looked = " or ".join(dict.fromkeys(str(candidate) for candidate in tried))
    raise DataError(
        f"data.path={path}: no such file, looked for {looked}. {cure} "
        "Correct data.path, or write hub:org/name for a data set on the Hub."
    )


def _nearest_file(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in ENDINGS]
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0.0)
    return (
        f"The nearest there is {path.parent / nearest[0]}."
        if nearest
        else f"{path.parent} holds no data file."
    )


def _text(source: DataSource, path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"data.path={source.path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; the file "
            "must be. Convert it, from Excel for instance with `iconv -f cp1252 -t utf-8`."
        ) from error


def _json_rows(source: DataSource, text: str) -> list[_Row]:
    rows: list[_Row] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if len(rows) == source.max_rows:
            break
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(
                f"line {number}: not JSON ({error}); each line must hold one object: mend or delete it."
            )
            continue
        if isinstance(cells, dict):
            rows.append(_Row(f"line {number}", cells))
        else:
            kind = type(cells).__name__
            problems.append(
                f"line {number}: a {kind}; each line must hold one object like {{...}}: mend or delete it."
            )
    _refuse(source.path, problems)
    return rows


def _csv_rows(source: DataSource, text: str) -> list[_Row]:
    # Not pandas: it shifts or pads rows of another length in silence and forgets line numbers.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[_Row] = []
    problems: list[str] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not header:
                header = cells
                _check_header(source, header)
            elif len(cells) == len(header):
                rows.append(_Row(f"line {line}", dict(zip(header, cells, strict=True))))
            elif cells:
                problems.append(
                    f"line {line}: {len(cells)} fields, the header has {len(header)}; they must be as many: "
                    'put fields that hold a comma or a line end into "quotes".'
                )
            line = reader.line_num + 1
            if len(rows) == source.max_rows:
                break
    except csv.Error as error:
        raise DataError(
            f"data.path={source.path}, line {line}: not CSV ({error}); fields must be separated by commas "
            'and quotes inside "quotes" doubled. Mend the line, or give the rows as .jsonl.'
        ) from error
    _refuse(source.path, problems)
    return rows


def _check_header(source: DataSource, header: Sequence[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"data.path={source.path}, line 1: the column names {_listed(repeated)} stand there twice; they "
            "must be distinct. Rename one of each."
        )


def _parquet_rows(source: DataSource, path: Path) -> list[_Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data.path={source.path}: not a readable Parquet file ({error}); must be one. Write it anew, or "
            "give the rows as .jsonl."
        ) from error
    cells = table.slice(0, source.max_rows).to_pylist()
    return [_Row(f"row {number}", row) for number, row in enumerate(cells, start=1)]


# Columns


def _layout(source: DataSource, rows: Sequence[_Row]) -> _Layout:
    columns = tuple(dict.fromkeys(name for row in rows for name in row.cells))
    named = [
        *(
            (f"{kind}_column", getattr(source, f"{kind}_column"))
            for kind in ("messages", "prompt", "response", "id", "intent", "required", "forbidden")
        ),
        *(("slice_columns", name) for name in source.slice_columns),
    ]
    for key, name in named:
        if name is not None and name not in columns:
            raise DataError(
                f"data.path={source.path}: data.{key} names `{name}`, which is not among the columns "
                f"{_listed(columns)}. {_nearest_column([name], columns, key)}"
            )
    if source.messages_column is not None:
        return _Layout(source.messages_column, "", "")
    by_name = source.prompt_column is None and source.response_column is None
    if by_name and "messages" in columns:
        return _Layout("messages", "", "")
    prompt = source.prompt_column or _usual(source, columns, PROMPT_COLUMNS, key="prompt_column")
    response = source.response_column or _usual(source, columns, RESPONSE_COLUMNS, key="response_column")
    return _Layout(None, prompt, response)


def _usual(source: DataSource, columns: Sequence[str], names: Sequence[str], *, key: str) -> str:
    found = next((name for name in names if name in columns), None)
    if found is None:
        raise DataError(
            f"data.path={source.path}: the columns are {_listed(columns)}; there must be `messages`, or one "
            f"of {_listed(names)}, or data.{key} must name one. {_nearest_column(names, columns, key)}"
        )
    return found


def _nearest_column(names: Iterable[str], columns: Sequence[str], key: str) -> str:
    def likeness(column: str) -> float:
        return max(difflib.SequenceMatcher(None, column.lower(), name.lower()).ratio() for name in names)

    nearest = max(columns, key=likeness, default=None)
    return (
        "The rows have no columns."
        if nearest is None
        else f"The nearest is `{nearest}`: set data.{key}={nearest}."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# Rows


def _example(source: DataSource, layout: _Layout, *, row: _Row, number: int) -> Example:
    if layout.messages is not None:
        messages = _messages(layout.messages, row.cells.get(layout.messages))
    else:
        messages = (
            Message(role="user", content=_content(layout.prompt, row.cells.get(layout.prompt))),
            Message(role="assistant", content=_content(layout.response, row.cells.get(layout.response))),
        )
    if source.system_prompt and messages[0].role != "system":
        messages = (Message(role="system", content=source.system_prompt), *messages)
    slices = {name: row.cells.get(name) for name in source.slice_columns}
    return Example(
        id=f"row-{number}"
        if source.id_column is None
        else _id(source.id_column, row.cells.get(source.id_column)),
        messages=messages,
        intent=None if source.intent_column is None else _label(row.cells.get(source.intent_column)),
        required=_phrases(source.required_column, row.cells),
        forbidden=_phrases(source.forbidden_column, row.cells),
        slices={name: label for name, value in slices.items() if (label := _label(value)) is not None},
    )


def _messages(column: str, value: object) -> tuple[Message, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"column `{column}`: not JSON ({error}); must hold a list of messages: mend it."
            ) from error
    if not isinstance(value, list) or not value:
        raise DataError(
            f"column `{column}`: is {_shown(value)}; must be a list of messages: fill it or delete the row."
        )
    messages = tuple(_message(column, turn, number=number) for number, turn in enumerate(value, start=1))
    if messages[-1].role != "assistant":
        raise DataError(
            f"column `{column}`: the last message is the {messages[-1].role}'s; must be the assistant's "
            "answer: add it or delete the row."
        )
    if not any(turn.role == "user" for turn in messages):
        raise DataError(f"column `{column}`: the prompt is empty; there must be a user's message: add it.")
    return messages


def _message(column: str, turn: object, *, number: int) -> Message:
    if not isinstance(turn, dict):
        raise DataError(
            f"column `{column}`, message {number}: is {_shown(turn)}; must be an object with `role` and "
            "`content`: rewrite it."
        )
    role = turn.get("role")
    if role not in get_args(Role):
        raise DataError(
            f"column `{column}`, message {number}: `role` is {_shown(role)}; must be one of "
            f"{_listed(get_args(Role))}: rename it."
        )
    return Message(
        role=cast(Role, role), content=_content(f"{column}`, message {number}, `content", turn.get("content"))
    )


def _content(column: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = "empty" if value is None or value == "" else _shown(value)
        raise DataError(f"column `{column}`: is {shown}; must hold text: fill it or delete the row.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"column `{column}`: {error.reason} at character {error.start + 1}; must be valid Unicode: "
            "delete that character."
        ) from error
    return value.replace("\r\n", "\n")


def _id(column: str, value: object) -> str:
    label = _label(value)
    if label is None:
        raise DataError(
            f"column `{column}`: is empty; must hold the row's id: fill it or set data.id_column=null."
        )
    return label


def _label(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _phrases(column: str | None, cells: Mapping[str, object]) -> tuple[str, ...]:
    value = None if column is None else cells.get(column)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(phrase.strip() for phrase in value.split(";") if phrase.strip())
    if isinstance(value, list) and all(isinstance(phrase, str) and phrase.strip() for phrase in value):
        return tuple(value)
    raise DataError(
        f"column `{column}`: is {_shown(value)}; must be a list of phrases, or text with `;` between "
        "phrases: rewrite it."
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _repeated_ids(source: DataSource, rows: Sequence[_Row], examples: Sequence[Example]) -> list[str]:
    first: dict[str, str] = {}
    problems: list[str] = []
    for row, example in zip(rows, examples, strict=True):
        if example.id in first:
            problems.append(
                f"{row.place}, column `{source.id_column}`: `{example.id}` stands in {first[example.id]} "
                "too; ids must be distinct: rename one, or set data.id_column=null."
            )
        first.setdefault(example.id, row.place)
    return problems
