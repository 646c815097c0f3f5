"""What MLflow shall show, kept on disk before it is sent: one JSON line for each change of a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sweep.tracking.points import Point

SWEEP = ""

_logger = logging.getLogger("sweep.tracking")


class Begun(NamedTuple):
    """A nested run: what a person sees of it, and since when, in milliseconds since the epoch."""

    title: str
    at_ms: int


class Status(NamedTuple):
    """One of MLflow's. ended_ms: None unless the run has ended."""

    name: str
    ended_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A change of one run. Sent twice, it changes nothing: its points keep their time.

    run: `SWEEP`, or the trial. artifact: its path among the run's and below `Journal.artifacts`. dataset: the
    fields of MLflow's, and `context`. found: what the store showed of a run that the journal knew nothing of;
    never sent.
    """

    run: str = SWEEP
    begun: Begun | None = None
    points: tuple[Point, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: Status | None = None
    artifact: str | None = None
    dataset: Mapping[str, str] | None = None
    found: Mapping[str, dict[str, str | tuple[int, float]]] | None = None

    def as_json(self) -> str:
        """One line. Raises ValueError for a value that is not finite."""
        return json.dumps({key: value for key, value in vars(self).items() if value}, allow_nan=False)

    @classmethod
    def from_json(cls, line: bytes) -> Entry:
        """What `as_json` wrote. Raises ValueError, TypeError or AttributeError if it did not."""
        told = json.loads(line)
        if begun := told.get("begun"):
            told["begun"] = Begun(*begun)
        if status := told.get("status"):
            told["status"] = Status(*status)
        return cls(**{**told, "points": tuple(Point(*point) for point in told.get("points", ()))})


class Journal:
    """Entries in the order in which they were written. One process writes; its threads may read.

    A line that a kill or a full disk cut short was never there: `append` takes it back, opening drops it.
    size: bytes of whole lines; what a reader may read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._file = self._path.open("ab", buffering=0)
        self.size = self._whole()
        self._file.truncate(self.size)

    def append(self, entry: Entry) -> None:
        """Write the entry: from then on it outlives the process. Raises OSError if the disk takes no more."""
        line = entry.as_json().encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except BaseException:
            # A signal's exception too: the next line must not begin behind half of this one.
            self._file.truncate(self.size)
            raise
        self.size += len(line)

    def read(self, start: int) -> Iterator[tuple[Entry, int]]:
        """Entries from the byte `start` on, each with the byte behind it, to what is `size` now.

        A damaged line says nothing.
        """
        end = self.size
        with self._path.open("rb") as file:
            file.seek(start)
            while start < end:
                line = file.readline()
                start += len(line)
                try:
                    entry = Entry.from_json(line)
                except (ValueError, TypeError, AttributeError):
                    _logger.warning("%s: a damaged line before byte %d is left out.", self._path, start)
                    entry = Entry()
                yield entry, start

    def sync(self) -> None:
        """Make what was written outlive the machine: nothing may be sent that a power cut takes back."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more is written; what is there can still be read."""
        self._file.close()

    def _whole(self) -> int:
        size = 0
        with self._path.open("rb") as file:
            for line in file:
                size += len(line) if line.endswith(b"\n") else 0
        return size
