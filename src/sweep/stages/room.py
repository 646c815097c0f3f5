"""What a whole sweep needs on disk, said and checked before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sweep.engines.remote import is_url
from sweep.errors import ConfigError
from sweep.search.disk import Disk
from sweep.search.study import Study
from sweep.stages.finalists import Confirm

# The winner's adapter, a third of a state, is exported, kept for MLflow and kept by it; then come tables.
_PAGES_BYTES = 20e6


@dataclass(frozen=True, kw_only=True)
class Needs:
    """At once, at most, beside the states of complete trials, which go where room is short.

    state_bytes: of one. searching, confirming: states at once. bytes: of all. other_bytes: of what does not
    lie below `checkpoints`.
    """

    state_bytes: int
    searching: int
    confirming: int

    @property
    def bytes(self) -> int:
        return max(self.searching, self.confirming) * self.state_bytes

    @property
    def other_bytes(self) -> int:
        return self.state_bytes + int(_PAGES_BYTES)


def needs_of(study: Study, disk: Disk, confirm: Confirm, *, at_once: int) -> Needs:
    """Of what the study has still to search, and of its confirmation. at_once: trials in training."""
    trials = study.plan.trials
    goes_on = len(study.standings) < trials or any(not one.ended for one in study.standings)
    # A job writes a state before the one before may go.
    searching = study.most_waiting + 2 * min(at_once, trials) if goes_on else 0
    finalists = finalist_states(confirm, trials)
    return Needs(state_bytes=disk.state_bytes, searching=searching, confirming=finalists + 1)


def finalist_states(confirm: Confirm, trials: int) -> int:
    """That confirmation keeps: of the best trials and the defaults, one for each seed."""
    return min(confirm.top_k + 1, trials) * confirm.seeds


def require_room(needs: Needs, disk: Disk, *, disk_gb: float | None) -> None:
    """Nothing, or ConfigError: more is needed than may be written, beside what lies there already."""
    needed = needs.bytes if disk_gb is not None else needs.bytes + needs.other_bytes
    lacking = needed - disk.used_bytes - disk.left_bytes
    if needs.state_bytes and lacking > 0:
        place, left = _shown(disk.place), max(0.0, disk.left_bytes)
        raise ConfigError(
            f"budget.disk_gb={'null' if disk_gb is None else f'{disk_gb:g}'}: a checkpoint takes up to "
            f"{in_bytes(needs.state_bytes)}, and this sweep needs {in_bytes(needed)} at once: up to "
            f"{needs.searching} of them while it searches, {needs.confirming} for the finalists. At {place} "
            f"{in_bytes(left)} are left, {in_bytes(lacking)} too little. Free space, raise budget.disk_gb, "
            "name another place (checkpoints, output), lower the ranks (space.lora_rank), or train fewer at "
            "once (engine.slots, backend.workers, confirm.top_k, confirm.seeds)."
        )


def in_words(needs: Needs, disk: Disk) -> str:
    """What a checkpoint takes, and all that lie there at once."""
    left = disk.left_bytes
    may = "" if math.isinf(left) else f"; {in_bytes(left + disk.used_bytes)} may be used"
    return (
        f"a checkpoint takes up to {in_bytes(needs.state_bytes)}, those needed at once up to "
        f"{in_bytes(needs.bytes)}{may}: {_shown(disk.place)}"
    )


def _shown(place: str | None) -> str:
    """As people would write it here."""
    folder = str(place)
    return folder if is_url(folder) else folder.removeprefix(f"{Path.cwd()}/")


def in_bytes(count: float) -> str:
    """As people write it, by thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
