"""The file between a sweep and MLflow."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.tracking.journal import Begun, Entry, Journal, Status
from sweep.tracking.points import Point

TEXTS = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
VALUES = st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3)
POINTS = st.builds(Point, st.integers(), st.integers(), VALUES, st.integers(0, 9))
ENTRIES = st.builds(
    Entry,
    run=st.text(max_size=5),
    begun=st.none() | st.builds(Begun, st.text(max_size=5), st.integers()),
    points=st.lists(POINTS, max_size=3).map(tuple),
    params=TEXTS,
    tags=TEXTS,
    status=st.none() | st.builds(Status, st.just("KILLED"), st.none() | st.integers()),
    artifact=st.none() | st.just("plots/a.html"),
    dataset=st.none() | TEXTS.filter(bool),
)


@given(entry=ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    line = entry.as_json()
    assert "\n" not in line
    assert Entry.from_json(line.encode()) == entry


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(Entry(points=(Point(1, 1, {"loss": float("inf")}),)))
    assert journal.size == 0
    journal.close()


def test_half_a_line_was_never_there(tmp_path: Path) -> None:
    first, second = Entry(run="0", tags={"a": "b"}), Entry(run="1", tags={"c": "d"})
    journal = Journal(tmp_path)
    for entry in (first, second):
        journal.append(entry)
    journal.close()
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        torn = Journal(tmp_path)
        kept = [first, second][: whole[:cut].count(b"\n")]
        assert [entry for entry, _ in torn.read(0)] == kept
        torn.append(second)
        assert [entry for entry, _ in torn.read(0)] == [*kept, second]
        assert torn.size == path.stat().st_size
        torn.close()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """A disk that takes no more than that in one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    small, large = Entry(tags={"a": "b"}), Entry(tags={"a": "c" * 10_000})
    journal.append(small)
    with files_end_at(5000), pytest.raises(OSError, match="File too large"):
        journal.append(large)
    journal.append(small)
    assert [entry for entry, _ in journal.read(0)] == [small, small]
    journal.append(large)
    assert [entry for entry, _ in journal.read(0)] == [small, small, large]
    journal.close()


def test_a_damaged_line_is_told_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = Entry(run="0", tags={"a": "b"})
    damaged = b'\xff\n[1]\n{"nothing": 1}\n{"points": [1]}\n'
    (tmp_path / "journal.jsonl").write_bytes(damaged + entry.as_json().encode() + b"\n")
    journal = Journal(tmp_path)
    assert [found for found, _ in journal.read(0)] == [*[Entry()] * 4, entry]
    assert caplog.text.count("is left out") == 4
    journal.close()
