"""Rows as they stand in a JSONL, CSV or Parquet file or on the Hub, cells not yet looked at."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweep import hub
from sweep.data.source import DataSource
from sweep.errors import DataError
from sweep.paths import packaged_root

ENDINGS = (".jsonl", ".csv", ".parquet")
ROWS_SHOWN = 3


class Row(NamedTuple):
    """One row's cells and the line or row number by which its owner finds it."""

    place: str
    cells: Mapping[str, object]


def read(source: DataSource) -> list[Row]:
    """The source's rows in order. Raises DataError where they can't be read."""
    try:
        return _hub_rows(source) if _on_hub(source.path) else _file_rows(source)
    except OSError as error:
        raise DataError(
            f"data.path={source.path}: the file can't be read ({error.strerror or error}); it must be. Let "
            "yourself read it and enter its folder (chmod), or copy it to where you may."
        ) from error


def _on_hub(path: str) -> bool:
    if path.startswith("hub:"):
        return True
    # A name with a dot or in a folder that is there is more likely a mistyped file.
    here = any((root / path).exists() or (root / path).parent.is_dir() for root in _roots())
    return not here and re.fullmatch(r"[\w-]+/[\w-]+", path) is not None


def _roots() -> tuple[Path, Path]:
    return Path.cwd(), packaged_root()


def _hub_rows(source: DataSource) -> list[Row]:
    import datasets

    name = source.path.removeprefix("hub:")
    if not Path(name).is_dir():
        hub.require(name, "dataset", refusal=DataError, key="data.path")
    try:
        table = datasets.load_dataset(name, split=source.hub_split)
        rows = table if source.max_rows is None else table.take(min(source.max_rows, len(table)))
        return [Row(f"row {number}", cells) for number, cells in enumerate(rows, start=1)]
    except Exception as error:
        raise DataError(
            f"data.path={source.path}, data.hub_split={source.hub_split}: the Hub gave no rows "
            f"({type(error).__name__}: {error}). Check the name and the split; log in with `hf auth login` "
            "for a gated data set; without a network, save it as a .parquet file and set data.path to that."
        ) from error


def _file_rows(source: DataSource) -> list[Row]:
    path = _locate(source.path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(
            f"data.path={source.path}: the ending is {path.suffix or 'missing'}; must be one of "
            f"{listed(ENDINGS)}. Convert the file, or write hub:org/name for a data set on the Hub."
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
        encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
        raise DataError(
            f"data.path={source.path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; the file "
            f"must be. Save it as UTF-8, or convert it, for instance with `iconv -f {encoding} -t utf-8`."
        ) from error


def _json_rows(source: DataSource, text: str) -> list[Row]:
    rows: list[Row] = []
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
            rows.append(Row(f"line {number}", cells))
        else:
            kind = type(cells).__name__
            problems.append(
                f"line {number}: a {kind}; each line must hold one object like {{...}}: mend or delete it."
            )
    refuse(source.path, problems)
    return rows


def _csv_rows(source: DataSource, text: str) -> list[Row]:
    # Not pandas: it shifts or pads rows of another length in silence and forgets line numbers.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    problems: list[str] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not header:
                header = cells
                _check_header(source, header)
            elif len(cells) == len(header):
                rows.append(Row(f"line {line}", dict(zip(header, cells, strict=True))))
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
    refuse(source.path, problems)
    return rows


def _check_header(source: DataSource, header: Sequence[str]) -> None:
    names = header[0] if len(header) == 1 else ""
    if separator := next((mark for mark in (";", "\t", "|") if mark in names), None):
        raise DataError(
            f"data.path={source.path}, line 1: {names!r} is a single column; commas must part fields, but "
            f"{separator!r} seems to. Save the file with commas, or give the rows as .jsonl."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"data.path={source.path}, line 1: the column names {listed(repeated)} stand there twice; they "
            "must be distinct. Rename one of each."
        )


def _parquet_rows(source: DataSource, path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except PermissionError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"data.path={source.path}: not a readable Parquet file ({error}); must be one. Write it anew, or "
            "give the rows as .jsonl."
        ) from error
    cells = table.slice(0, source.max_rows).to_pylist()
    return [Row(f"row {number}", row) for number, row in enumerate(cells, start=1)]


def refuse(path: str, problems: Sequence[str]) -> None:
    """Raise DataError with the first problems, each a place and what to do there; nothing without any."""
    if not problems:
        return
    noun = "row" if len(problems) == 1 else "rows"
    more = len(problems) - ROWS_SHOWN
    shown = [*problems[:ROWS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    raise DataError("\n  ".join([f"data.path={path}: {len(problems)} {noun} can't be used.", *shown]))


def listed(names: Iterable[str]) -> str:
    """Names as an error shows them."""
    return ", ".join(f"`{name}`" for name in names)
