"""Documents as passages: every word, in order, cut where a reader would."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sweep.data.documents import WORDS, passages
from sweep.errors import DataError


def write(folder: Path, **texts: str | bytes) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("seed", range(20))
def test_no_word_is_lost_and_none_moves(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    gaps = (" ", "  ", "\t", "\n", "\r\n", "\n\n", "\n \t\n\n")
    often = [draw.choice((0, 1, 40)) for _ in gaps]
    text = "".join(
        f"w{i}{draw.choices(gaps, [1 + weight for weight in often])[0]}" for i in range(draw.randint(1, 900))
    )
    write(tmp_path, a_md=text)
    found = passages(str(tmp_path))
    assert " ".join(found).split() == text.split()
    assert all(0 < len(passage.split()) <= WORDS for passage in found)


def test_paragraphs_stay_whole_where_they_fit(tmp_path: Path) -> None:
    short, long = " ".join(["few"] * 50), " ".join(["many"] * 90)
    write(tmp_path, a_md=f"{short}\n\n{short}\n\n{long}\n\n{short}")
    assert passages(str(tmp_path)) == (f"{short}\n\n{short}", long, short)


def test_a_long_paragraph_is_cut_between_lines_and_a_long_line_between_words(tmp_path: Path) -> None:
    lines = [f"- {'point ' * 38}{i}" for i in range(4)]
    write(tmp_path, a_txt="\n".join(lines), b_txt="word\t" * 250)
    assert passages(str(tmp_path)) == (
        "\n".join(lines[:3]),
        lines[3],
        *(" ".join(["word"] * count) for count in (120, 120, 10)),
    )


def test_files_come_by_path_subfolders_included_and_no_others(tmp_path: Path) -> None:
    write(tmp_path, b_md="second", a__z_txt="\ufefffirst", c_MD="third", d_rst="not", e_md=" \n\n ")
    assert passages(str(tmp_path)) == ("first", "second", "third")


@pytest.mark.parametrize(
    ("texts", "folder", "told"),
    [
        ({}, "none", "there is no such folder"),
        ({"a_md": "x"}, "a.md", "there is no such folder"),
        ({"a_rst": "text"}, ".", "no .md or .txt file there holds text"),
        ({"a_md": "\n \n"}, ".", "no .md or .txt file there holds text"),
        ({"a_md": b"one\ntwo \xff"}, ".", "a.md, line 2: byte 0xff is not UTF-8"),
    ],
)
def test_a_folder_without_text_is_told(
    tmp_path: Path, texts: dict[str, str | bytes], folder: str, told: str
) -> None:
    write(tmp_path, **texts)
    with pytest.raises(DataError) as error:
        passages(str(tmp_path / folder))
    assert told in str(error.value)
