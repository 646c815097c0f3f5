"""What a study's trials have on disk, and whether more fits."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweep.engines import checkpoint
from sweep.engines.remote import is_url
from sweep.search.states import Needed
from sweep.types import Standing

# Left of a file system for all else that is written on it.
_RESERVE_SHARE, _MOST_RESERVED = 0.05, 1e9
# A state of a trial of the search: "12/96", or in a fold of it "12/fold0/96".
_OWN = re.compile(r"(\d+)/(?:fold\d+/)?\d+")


class Disk:
    """The states of a study's trials. Each is removed once nobody needs it, and counts until it is gone.

    place: a folder or URL, looked through now for what no report tells of; None: reports tell of all, and
    there is room for more. most_bytes: that may lie there; None: what its file system has free, below a URL
    no limit. state_bytes: what a state is expected to take, or the largest one where that is more.
    """

    def __init__(
        self, place: str | None = None, *, most_bytes: float | None = None, state_bytes: int = 0
    ) -> None:
        self.place = place
        self.state_bytes = state_bytes
        self._most_bytes = most_bytes
        self._states: dict[str, dict[str, str]] = {}
        self._bytes: dict[str, int] = {}
        self._spare: dict[str, frozenset[str]] = {}
        # Nobody asks below a URL without a limit, and there each answer takes its time.
        self._counts = place is not None and not (is_url(place) and most_bytes is None)
        self.used_bytes = 0
        for path, size in checkpoint.files(place).items() if place else ():
            if state := _OWN.fullmatch(path.rpartition("/")[0]):
                # By its own name: the place may have moved since a report told of it.
                self._states.setdefault(state[1], {})[state[0]] = f"{place}/{state[0]}"
                self._bytes[state[0]] = self._bytes.get(state[0], 0) + size
            self.used_bytes += size

    # Room

    @property
    def left_bytes(self) -> float:
        """That may still be written, infinite where nobody knows."""
        if self.place is None:
            return math.inf
        left = math.inf if self._most_bytes is None else self._most_bytes - self.used_bytes
        return left if is_url(self.place) else min(left, _free_bytes(Path(self.place)))

    def fits(self, states: int) -> bool:
        """Whether so many more do."""
        return self.left_bytes >= states * self.state_bytes

    # What lies there

    def came(self, trial: str, state: str | None) -> None:
        """A state was written."""
        if state is None:
            return
        name = _name(state)
        self._states.setdefault(trial, {})[name] = state
        if self._counts:
            size = sum(checkpoint.files(state).values())
            self.used_bytes += size - self._bytes.get(name, 0)
            self._bytes[name] = size
            self.state_bytes = max(self.state_bytes, size)

    def keep(self, standing: Standing, stopped: Mapping[str, Any] | None, needed: Needed) -> None:
        """Remove the trial's states but those needed. stopped: the entry of that name."""
        trial = standing.trial.id
        if self.place is None and trial not in self._states:
            for report in standing.reports:
                self.came(trial, report.checkpoint)
            self.came(trial, stopped["checkpoint"] if stopped else None)
        kept = {_name(state) for state in needed.kept | needed.spare}
        self._remove(trial, self._states.get(trial, {}).keys() - kept)
        self._spare[trial] = frozenset(map(_name, needed.spare - needed.kept))

    def drop(self, trial: str) -> None:
        """Remove all states of the trial."""
        self._remove(trial, self._states.get(trial, {}).keys())

    def drop_spare(self, trial: str) -> None:
        """Remove those of the trial that are."""
        self._remove(trial, self._spare.get(trial, frozenset()) & self._states.get(trial, {}).keys())

    def _remove(self, trial: str, names: Iterable[str]) -> None:
        for name in list(names):
            if checkpoint.remove(self._states[trial][name]):
                del self._states[trial][name]
                self.used_bytes -= self._bytes.pop(name, 0)


def _name(state: str) -> str:
    """The trial's and the examples', where it is a state as engines write them."""
    found = re.search(rf"(?:^|/)({_OWN.pattern})$", state)
    return found[1] if found else state


def _free_bytes(folder: Path) -> float:
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return disk.free - min(_RESERVE_SHARE * disk.total, _MOST_RESERVED)
