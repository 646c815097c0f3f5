from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest

from sweep.data.example import Message
from sweep.data.load import load
from sweep.data.source import DataSource, SplitShares
from sweep.errors import DataError
from sweep.paths import packaged_root

SHARES = SplitShares(train=0.7, validation=0.1, confirm=0.08, test=0.08, golden=0.04, group_similarity=0.8)
ROWS = [
    {"prompt": "Where is order 7?", "response": "On its way.", "topic": "delivery"},
    {"prompt": "Naïve question\nwith two lines", "response": 'Say "please", then wait.', "topic": "manners"},
    {"prompt": "NA", "response": "null", "topic": ""},
]


def source(path: Path | str, **changes: Any) -> DataSource:
    settings: dict[str, Any] = {
        "hub_split": "train",
        "messages_column": None,
        "prompt_column": None,
        "response_column": None,
        "id_column": None,
        "intent_column": None,
        "required_column": None,
        "forbidden_column": None,
        "slice_columns": (),
        "system_prompt": None,
        "max_tokens": 64,
        "max_rows": None,
        "split": SHARES,
    }
    return DataSource(path=str(path), **(settings | changes))


def jsonl(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} speaks"} for role in roles]}


def refusal(source: DataSource) -> str:
    with pytest.raises(DataError) as caught:
        load(source)
    return str(caught.value)


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("locked", ["file", "folder"])
def test_what_may_not_be_read_is_told_as_such(
    ending: str, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    with TemporaryDirectory(dir="/tmp") as inner:
        Path(inner).chmod(0o755)
        path = Path(inner) / f"rows.{ending}"
        path.write_text("not to be read")
        (path if locked == "file" else path.parent).chmod(0)
        with nobody():
            told = refusal(source(path))
        path.parent.chmod(0o755)
    assert str(path) in told
    assert "Permission denied" in told
    assert "chmod" in told


# Formats


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    if ending == ".jsonl":
        jsonl(tmp_path, ROWS)
    elif ending == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        path.write_bytes(text.getvalue().encode())
    else:
        pd.DataFrame(ROWS).to_parquet(path)

    examples = load(source(path, intent_column="topic", slice_columns=("topic",)))

    assert [(row.prompt, row.response) for row in examples] == [(r["prompt"], r["response"]) for r in ROWS]
    assert [row.id for row in examples] == ["row-1", "row-2", "row-3"]
    assert [row.intent for row in examples] == ["delivery", "manners", None]
    assert [dict(row.slices) for row in examples] == [{"topic": "delivery"}, {"topic": "manners"}, {}]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_messages_come_as_lists_or_as_json_text(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    row = turns("system", "user", "assistant", "user", "assistant")
    if ending == ".jsonl":
        jsonl(tmp_path, [row])
    elif ending == ".csv":
        pd.DataFrame([{"messages": json.dumps(row["messages"])}]).to_csv(path, index=False)
    else:
        pd.DataFrame([row]).to_parquet(path)

    (example,) = load(source(path))

    assert [message.role for message in example.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert example.prompt == "user speaks\nassistant speaks\nuser speaks"
    assert example.response == "assistant speaks"


def test_a_hub_data_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    pd.DataFrame(ROWS).to_parquet(folder / "train.parquet")

    examples = load(source(f"hub:{folder}", max_rows=2))

    assert [row.prompt for row in examples] == [ROWS[0]["prompt"], ROWS[1]["prompt"]]

    message = refusal(source(f"hub:{folder}", hub_split="tset"))
    assert "data.hub_split=tset" in message
    assert "Check the name and the split" in message


def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", unreachable)
    message = refusal(source("some-organisation/some-rows"))
    assert "data.path=some-organisation/some-rows" in message
    assert "no route to host" in message
    assert "name its folder or file" in message

    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", lambda *_, **__: None)
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    assert "save it as a .parquet file" in refusal(source("some-organisation/some-rows"))


def test_line_ends_of_the_file_stay_out_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,response\r\n"one\r\ntwo","three\r\nfour"\r\n')
    (example,) = load(source(path))
    assert (example.prompt, example.response) == ("one\ntwo", "three\nfour")


def test_blank_lines_do_not_count_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '\n{"prompt": "a\u2028b", "response": "c"}\n\n{"prompt": "d", "response": "e"}', encoding="utf-8"
    )
    assert [(row.id, row.prompt) for row in load(source(path))] == [("row-1", "a\u2028b"), ("row-2", "d")]


def test_max_rows_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ROWS)
    path.write_text(path.read_text(encoding="utf-8") + "broken", encoding="utf-8")
    assert len(load(source(path, max_rows=3))) == 3
    assert "line 4" in refusal(source(path))


def test_relative_paths_are_tried_here_and_then_where_the_product_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, product = tmp_path / "here", tmp_path / "product"
    for folder in (here, product):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sweep.data.rows.packaged_root", lambda: product)
    jsonl(product, ROWS)
    assert len(load(source("rows.jsonl"))) == 3
    jsonl(here, ROWS[:1])
    assert len(load(source("rows.jsonl"))) == 1


def test_an_editable_install_finds_the_repository() -> None:
    assert (packaged_root() / "pyproject.toml").is_file()


# Columns


def test_the_usual_column_names_are_found(tmp_path: Path) -> None:
    (example,) = load(source(jsonl(tmp_path, [{"completion": "a", "question": "q", "other": 1}])))
    assert (example.prompt, example.response) == ("q", "a")


BOTH = {**turns("user", "assistant"), "q": "asked", "a": "told"}


@pytest.mark.parametrize(
    ("columns", "response"),
    [
        ({}, "assistant speaks"),
        ({"prompt_column": "q", "response_column": "a"}, "told"),
        ({"prompt_column": "q", "response_column": "a", "messages_column": "messages"}, "assistant speaks"),
    ],
)
def test_messages_win_over_configured_columns_only_if_asked_for(
    tmp_path: Path, columns: Mapping[str, str], response: str
) -> None:
    (example,) = load(source(jsonl(tmp_path, [BOTH]), **columns))
    assert example.response == response


def test_the_system_prompt_goes_in_front_of_rows_that_have_none(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [turns("user", "assistant"), turns("system", "user", "assistant")])
    without, with_own = load(source(path, system_prompt="Be kind."))
    assert without.messages[0] == Message(role="system", content="Be kind.")
    assert without.prompt == "user speaks"
    assert with_own.messages[0].content == "system speaks"
    assert len(with_own.messages) == 3


def test_phrases_come_as_lists_or_parted_by_semicolons(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response": "r", "must": ["a; b", "c"], "never": []},
        {"prompt": "p", "response": "r", "must": "a; b;", "never": None},
    ]
    path = jsonl(tmp_path, rows)
    listed, parted = load(source(path, required_column="must", forbidden_column="never"))
    assert (listed.required, listed.forbidden) == (("a; b", "c"), ())
    assert (parted.required, parted.forbidden) == (("a", "b"), ())


def test_ids_come_from_their_column(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "r", "key": key} for key in (7, "x")]
    assert [row.id for row in load(source(jsonl(tmp_path, rows), id_column="key"))] == ["7", "x"]


# Refusals: each names the path, the place and the cure


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"prompt": " ", "response": "r"}, ["column `prompt`", "' '", "must hold text", "delete the row"]),
        ({"prompt": "p", "response": None}, ["column `response`", "is empty", "fill it"]),
        ({"prompt": "p", "response": 3}, ["column `response`", "is 3", "must hold text"]),
        ({"prompt": "p\ud800", "response": "r"}, ["column `prompt`", "character 2", "valid Unicode"]),
        (turns("assistant"), ["column `messages`", "the prompt is empty", "add it"]),
        (turns("user"), ["column `messages`", "the user's", "the assistant's answer"]),
        (turns("human", "assistant"), ["message 1", "'human'", "`user`", "rename it"]),
        ({"messages": [{"role": "user", "content": ""}]}, ["message 1, `content`", "is empty"]),
        ({"messages": ["hello"]}, ["message 1", "'hello'", "`role` and `content`"]),
        ({"messages": []}, ["is []", "must be a list of messages"]),
        ({"messages": "[{"}, ["not JSON", "must hold a list of messages"]),
        (
            {"prompt": "p", "response": "r", "must": {"a": 1}},
            ["column `must`", "{'a': 1}", "list of phrases"],
        ),
        ({"prompt": "p", "response": "r", "id": ""}, ["column `id`", "is empty", "data.id_column=null"]),
    ],
)
def test_an_unfit_row_is_named(tmp_path: Path, row: dict[str, Any], parts: list[str]) -> None:
    usual: dict[str, Any] = {"prompt": "p", "response": "r", "id": "fine"}
    if "messages" in row:
        usual = turns("user", "assistant")
    settings: dict[str, Any] = {"required_column": "must"} if "must" in row else {}
    if "id" in row:
        settings["id_column"] = "id"
    path = jsonl(tmp_path, [usual, row])

    message = refusal(source(path, **settings))

    assert f"data.path={path}: 1 row can't be used" in message
    assert "line 2, column" in message
    for part in parts:
        assert part in message


def test_three_unfit_rows_are_shown_and_all_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"prompt": "", "response": "r"}] * 5)
    message = refusal(source(path))
    assert "5 rows can't be used" in message
    assert re.findall(r"line \d", message) == ["line 1", "line 2", "line 3"]
    assert "and 2 more" in message


def test_broken_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "response": "r"}\n{"prompt": \n[1]\n', encoding="utf-8")
    message = refusal(source(path))
    assert "2 rows can't be used" in message
    assert "line 2: not JSON" in message
    assert "line 3: a list; each line must hold one object" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("prompt,response\np,r\nMe, too,r\n", ["line 3: 3 fields, the header has 2", "quotes"]),
        ('prompt,response\n"p\n2",r\n"open,r\n', ["line 4: not CSV", "unexpected end", ".jsonl"]),
        ("prompt,prompt\na,b\n", ["line 1", "`prompt` stand there twice", "Rename"]),
        ("prompt,response\n", ["there are no rows", "Give another file"]),
    ],
)
def test_broken_csv_is_named(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    message = refusal(source(path))
    assert f"data.path={path}" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_text_that_is_not_utf_8_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes('prompt,response\n{"prompt": "café"}\n'.encode("latin-1"))
    message = refusal(source(path))
    assert f"data.path={path}, line 2: byte 0xe9 is not UTF-8" in message
    assert "iconv" in message


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_an_empty_file_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.touch()
    assert f"data.path={path}: the file is empty" in refusal(source(path))


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text("prompt,response")
    message = refusal(source(path))
    assert f"data.path={path}: not a readable Parquet file" in message
    assert "Write it anew" in message


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS)
    (tmp_path / "rows.txt").touch()
    message = refusal(source(tmp_path / "row.jsonl"))
    assert "no such file" in message
    assert f"The nearest there is {tmp_path / 'rows.jsonl'}" in message
    assert "Correct data.path" in message
    assert f"The folder {tmp_path / 'no'} isn't there either" in refusal(source(tmp_path / "no" / "rows.csv"))
    assert "is a folder" in refusal(source(tmp_path))


def test_a_mistyped_file_is_not_taken_for_a_hub_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for path in ("data/rows", "nowhere/rows.jsonl"):
        message = refusal(source(path))
        assert "no such file" in message
        assert "hub:org/name" in message


def test_an_unknown_ending_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_text("x")
    message = refusal(source(path))
    assert "the ending is .xlsx; must be one of `.jsonl`, `.csv`, `.parquet`" in message


def test_unrecognised_columns_name_the_nearest_and_the_key_to_set(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"Customer question": "q", "reply": "a", "topic": "t"}])
    message = refusal(source(path))
    assert "`Customer question`, `reply`, `topic`" in message
    assert "The nearest is `Customer question`: set data.prompt_column=Customer question" in message
    message = refusal(source(path, prompt_column="Customer question"))
    assert "data.response_column" in message


@pytest.mark.parametrize(
    "key", ["messages_column", "prompt_column", "intent_column", "id_column", "required_column"]
)
def test_a_configured_column_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    message = refusal(source(jsonl(tmp_path, ROWS), **{key: "topik"}))
    assert f"data.{key} names `topik`" in message
    assert f"The nearest is `topic`: set data.{key}=topic" in message


def test_a_slice_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "data.slice_columns names `chanel`" in refusal(
        source(jsonl(tmp_path, ROWS), slice_columns=("chanel",))
    )


def test_repeated_ids_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"prompt": "p", "response": "r", "id": name} for name in "abab"])
    message = refusal(source(path, id_column="id"))
    assert "2 rows can't be used" in message
    assert "line 3, column `id`: `a` stands in line 1 too" in message


@pytest.mark.parametrize("rows", [0, -1])
def test_max_rows_below_one_is_refused(tmp_path: Path, rows: int) -> None:
    message = refusal(source(jsonl(tmp_path, ROWS), max_rows=rows))
    assert f"data.max_rows={rows}: must be at least 1" in message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"train": 0.8}, "their sum 1"),
        ({"train": 0.74, "golden": 0.0}, "each must be above 0"),
        ({"train": float("nan")}, "data.split"),
        ({"group_similarity": 0.0}, "data.split.group_similarity=0.0"),
        ({"group_similarity": 1.1}, "data.split.group_similarity=1.1"),
    ],
)
def test_shares_that_cannot_be_dealt_are_refused(changes: Mapping[str, float], part: str) -> None:
    fine = {
        "train": 0.7,
        "validation": 0.1,
        "confirm": 0.08,
        "test": 0.08,
        "golden": 0.04,
        "group_similarity": 0.8,
    }
    with pytest.raises(DataError, match=re.escape(part)):
        SplitShares(**(fine | dict(changes)))
