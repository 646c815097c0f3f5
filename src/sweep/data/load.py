"""Examples from a JSONL, CSV or Parquet file or a Hub data set, each row checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast, get_args

from sweep.data.example import Example, Message, Role
from sweep.data.rows import Row, listed, read, refuse
from sweep.data.source import DataSource
from sweep.errors import DataError

PROMPT_COLUMNS = ("prompt", "question", "instruction", "input")
RESPONSE_COLUMNS = ("response", "answer", "output", "completion")
# Likeness, 0 to 1, from which a name is a misspelling; `Customer question` for `question` has 0.64.
ALIKE = 0.6


class _Layout(NamedTuple):
    """The column with conversations, or else the two that hold prompt and response."""

    messages: str | None
    prompt: str
    response: str


def load(source: DataSource) -> tuple[Example, ...]:
    """The source's rows, in order, with distinct ids ("row-1" and on where there is no id column).

    Line ends inside a text become "\\n", so that a model doesn't learn a file's line ends. Raises
    DataError that names the path, up to three rows, and what to do.
    """
    if source.max_rows is not None and source.max_rows < 1:
        raise DataError(f"data.max_rows={source.max_rows}: must be at least 1. Set null to read every row.")
    rows = read(source)
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
    refuse(source.path, problems)
    refuse(source.path, _repeated_ids(source, rows, examples))
    return tuple(examples)


# Columns


def _layout(source: DataSource, rows: Sequence[Row]) -> _Layout:
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
                f"{listed(columns)}. {_nearest_column([name], columns, key)} For a file of your own with "
                f"other columns than the shipped data, start from data=own data.path={source.path}."
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
            f"data.path={source.path}: the columns are {listed(columns)}; there must be `messages`, or one "
            f"of {listed(names)}, or data.{key} must name one. {_nearest_column(names, columns, key)}"
        )
    return found


def _nearest_column(names: Iterable[str], columns: Sequence[str], key: str) -> str:
    def likeness(column: str) -> float:
        return max(difflib.SequenceMatcher(None, column.lower(), name.lower()).ratio() for name in names)

    nearest = max(columns, key=likeness, default=None)
    if nearest is None:
        return "The rows have no columns."
    if likeness(nearest) < ALIKE:
        return f"Set data.{key} to the one that is meant; a file's first line must hold the columns' names."
    return f"The nearest is `{nearest}`: set data.{key}={nearest}."


# Rows


def _example(source: DataSource, layout: _Layout, *, row: Row, number: int) -> Example:
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
            f"{listed(get_args(Role))}: rename it."
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


def _repeated_ids(source: DataSource, rows: Sequence[Row], examples: Sequence[Example]) -> list[str]:
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
