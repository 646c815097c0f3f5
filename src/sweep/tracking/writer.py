"""The thread that sends a journal to MLflow, in order, and notes how far it came."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.paths import write_whole
from sweep.redaction import redact
from sweep.tracking.journal import SWEEP, Entry, Journal
from sweep.tracking.runs import Runs
from sweep.tracking.store import first_line, refused, unreachable

if TYPE_CHECKING:
    from mlflow.entities import Run

# Between two turns: what trials say meanwhile goes into one request each, and a dead server is tried again.
PAUSE_SECONDS = 10.0
# The same while somebody waits.
RETRY_SECONDS = 1.0
ENTRIES_PER_TURN = 5000

_logger = logging.getLogger("sweep.tracking")


@dataclass(frozen=True)
class _Sent:
    """How far the journal was sent to a store, in bytes, and into which runs, by trial and `SWEEP`."""

    store: str
    offset: int = 0
    runs: Mapping[str, str] = field(default_factory=dict)


class Writer:
    """Sends what a journal holds; nobody waits for it but who calls `drain`.

    A killed writer's successor sends again what was not noted as sent, which changes nothing. A run
    that is gone, deleted or with its whole store, comes back whole; another store gets everything.
    """

    def __init__(self, journal: Journal, runs: Runs) -> None:
        self._journal = journal
        self._runs = runs
        self._place = redact(runs.tracking.uri)
        self._note = journal.folder / "sent.json"
        self._sent = self._noted(f"{self._place} {runs.tracking.experiment}")
        self._known = False
        self._away = False
        # Told of, by run.
        self._refusals: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._hurried = self._awaited = self._stopped = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    @property
    def parent_run_id(self) -> str:
        """Of the sweep's own run, as the store last showed it."""
        return self._runs.ids.get(SWEEP) or self._sent.runs[SWEEP]

    def open(self) -> dict[str, Run]:
        """Runs in the store that the journal does not know, by trial and `SWEEP`.

        Raises ConfigError if the store can't be reached and never was: its runs are not known then.
        One that was is waited for, and the sweep goes on.
        """
        strange = self._journal.size < max(1, self._sent.offset)
        try:
            found = self._look_up(self._sent.runs)
        except ConfigError:
            raise
        except Exception as error:
            if strange or SWEEP not in self._sent.runs:
                raise ConfigError(unreachable(self._place, error)) from error
            self._tell_outage(error)
            return {}
        if self._sent.offset > self._journal.size:
            self._keep(self._journal.size)
        return found if strange else {}

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def hurry(self) -> None:
        """Send what there is now."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Whether everything said so far is in the store, after `seconds` at most."""
        with self._changed:
            self._awaited = self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._sent.offset >= self._journal.size, seconds)
            self._awaited = False
        return done

    def stop(self, seconds: float) -> None:
        """Send no more. A request under way is waited for, `seconds` at most."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def missing(self) -> str:
        """What the store lacks, such as `12 points and 1 artifact of 3 runs`."""
        points, artifacts, runs = 0, set(), set()
        # One at a time: after a long outage these are most of the journal.
        for entry, _ in self._journal.read(self._sent.offset):
            points += len(entry.points)
            artifacts |= {entry.artifact} - {None}
            runs.add(entry.run)
        told = (_counted(points, "point"), _counted(len(artifacts), "artifact"), _counted(len(runs), "run"))
        return "{} and {} of {}".format(*told)

    def _work(self) -> None:
        while self._wait():
            if self._sent.offset < self._journal.size:
                self._turn()

    def _wait(self) -> bool:
        """Until the next turn is due; whether there is one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._hurried, RETRY_SECONDS if self._awaited else PAUSE_SECONDS
            )
            self._hurried = False
            return not self._stopped

    def _turn(self) -> None:
        try:
            if not self._known:
                self._look_up(self._sent.runs)
            while not self._stopped and self._sent.offset < self._journal.size:
                self._send_some()
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whatever it is, it is tried again
            self._known = False
            if not self._stopped:
                self._tell_outage(error)
            return
        if self._away and not self._stopped:
            self._away = False
            _logger.warning("MLflow at %s answers again and holds everything found so far.", self._place)

    def _send_some(self) -> None:
        """The next entries, one run after the other; noted once all are in the store."""
        # A power cut must not take back what the store shows: the same step would come with another time.
        self._journal.sync()
        by_run: dict[str, list[Entry]] = {}
        offset = self._sent.offset
        for entry, behind in islice(self._journal.read(offset), ENTRIES_PER_TURN):
            by_run.setdefault(entry.run, []).append(entry)
            offset = behind
        for name, entries in by_run.items():
            if self._stopped or not self._send(name, entries):
                return
        self._keep(offset)

    def _send(self, name: str, entries: list[Entry]) -> bool:
        """Whether this run is done with; False if a run is gone, and everything is sent anew."""
        try:
            self._runs.send(name, entries, self._journal.artifacts)
        except Exception as error:
            if not refused(error):
                raise
            known = self._runs.ids
            self._look_up(known)
            if not known.items() <= self._runs.ids.items():
                return False
            return self._send_parts(name, entries, first_line(error))
        return True

    def _send_parts(self, name: str, entries: list[Entry], refusal: str) -> bool:
        """Send all but what the store refuses by itself; whether there was time for that."""
        if len(entries) == 1:
            if (name, refusal) not in self._refusals:
                self._refusals.add((name, refusal))
                run = f"run {name}" if name else "the sweep's run"
                _logger.warning("MLflow at %s refuses a change of %s: %s", self._place, run, refusal)
            return True
        half = len(entries) // 2
        for part in (entries[:half], entries[half:]):
            if self._stopped:
                return False
            try:
                self._runs.send(name, part, self._journal.artifacts)
            except Exception as error:
                if not refused(error):
                    raise
                if not self._send_parts(name, part, first_line(error)):
                    return False
        return True

    def _look_up(self, known: Mapping[str, str]) -> dict[str, Run]:
        """The store's runs; where a known one is gone, everything is to be sent anew."""
        found = self._runs.look_up()
        self._known = True
        if not known.items() <= self._runs.ids.items():
            self._keep(0)
        return found

    def _keep(self, offset: int) -> None:
        """Note how far the store is."""
        sent = _Sent(self._sent.store, offset, self._runs.ids)
        write_whole(self._note, json.dumps(vars(sent)))
        with self._changed:
            self._sent = sent
            self._changed.notify_all()

    def _noted(self, store: str) -> _Sent:
        """What an earlier writer noted of this store; without it, everything is sent again."""
        try:
            noted = _Sent(**json.loads(self._note.read_bytes()))
        except (OSError, ValueError, TypeError):
            return _Sent(store)
        return noted if noted.store == store else _Sent(store)

    def _tell_outage(self, error: Exception) -> None:
        if self._away:
            return
        self._away = True
        _logger.warning(
            "MLflow at %s could not be written: %s. The search goes on; what it finds is kept in %s and sent "
            "when the store answers.",
            self._place,
            first_line(error),
            self._journal.folder,
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
