"""The sweep in MLflow: one parent run, one nested run per trial, no point lost and none stored twice.

What is to be shown is written into a journal; a thread of its own sends it (`writer.py`). What a
trial reached is taken from its `Standing`, never from events, so a restart says again only what the
journal lacks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.redaction import redact
from sweep.tracking.journal import SWEEP, Entry, Journal, Status
from sweep.tracking.points import now_ms
from sweep.tracking.record import SweepRecord, dataset_of, new_params
from sweep.tracking.runs import Runs, RunStatus
from sweep.tracking.said import Said, of_beside, of_found, of_metrics, of_progress, of_standing
from sweep.tracking.store import Tracking
from sweep.tracking.writer import Writer
from sweep.types import Progress, Report, Standing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SweepRecord", "Tracker", "Tracking"]

# What a sweep that came to its end waits for its last points, and one that was stopped.
DRAIN_SECONDS = 30.0
STOPPED_SECONDS = 5.0

_logger = logging.getLogger("sweep.tracking")


class Tracker:
    """Writes a sweep into MLflow; an `Observer`. A later tracker of the same record goes on in the same runs.

    Owns the parent run and its nested runs; no other process may write to them. `standing` must
    know every trial whose events arrive, with the event already in it. folder: the experiment's;
    what MLflow shall show is kept below it. Opening raises ConfigError if the store can't be
    reached and never was. After that nothing waits for the store or raises for it: what it did not
    take is sent again, by this tracker or by the next. Every method raises OSError if the folder
    can't be written.
    """

    def __init__(
        self,
        tracking: Tracking,
        record: SweepRecord,
        standing: Callable[[str], Standing],
        *,
        folder: Path,
    ) -> None:
        self._uri = redact(tracking.uri)
        self._standing = standing
        self._journal = Journal(folder / "tracking" / _key(record))
        self._said: dict[str, Said] = {}
        for entry, _ in self._journal.read(0):
            self._of(entry.run).take(entry)
        self._writer = Writer(self._journal, Runs(tracking, record))
        try:
            unknown = self._writer.open()
        except ConfigError:
            self._journal.close()
            raise
        for name, run in unknown.items():
            self._say(of_found(name, run))
        self._describe(record)
        self._writer.start()

    @property
    def parent_run_id(self) -> str:
        """Of the sweep's own run."""
        return self._writer.parent_run_id

    def ui_command(self) -> str:
        """What to type to browse the runs; a password in the address is left out."""
        if self._uri.startswith(("http://", "https://")):
            return f"python -m webbrowser {quote(self._uri)}"
        return f"mlflow ui --backend-store-uri {quote(self._uri)}"

    def log(self, event: Progress | Report) -> None:
        """Take the event in; of a step or a rung that was told before, the first counts."""
        said = self._of(event.trial)
        if isinstance(event, Report) or said.status != "RUNNING":
            self._say(of_standing(self._standing(event.trial), said))
        if isinstance(event, Progress):
            self._say(of_progress(event, said))

    def sync(self, standings: Sequence[Standing]) -> None:
        """Make the runs agree with the standings, whatever an earlier process left undone."""
        for standing in standings:
            self._say(of_standing(standing, self._of(standing.trial.id)))
        self._writer.hurry()

    def drain(self, seconds: float) -> bool:
        """Whether all that was told so far is in the store, after `seconds` at most."""
        return self._writer.drain(seconds)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Set metrics of the sweep as a whole; a value that the run already shows adds no point."""
        self._say(of_metrics(SWEEP, metrics, said=self._of(SWEEP)))

    def log_beside(self, name: str, description: str, metrics: Mapping[str, float]) -> None:
        """Show something that is no trial, such as a baseline, as a finished run beside the trials'."""
        self._say(of_beside(name, description, metrics, said=self._of(name)))

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """Show the frame as `tables/<name>.json`, in place of an earlier one."""
        path = f"tables/{name}.json"
        self.log_text(path, frame.to_json(orient="split", index=False, date_format="iso"))
        shown = json.loads(self._of(SWEEP).tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in shown:
            self._tag("mlflow.loggedArtifacts", json.dumps([*shown, entry]))

    def log_figure(self, name: str, figure: Any) -> None:
        """Show the plotly figure as `plots/<name>.html`, which needs no network to be read."""
        self.log_text(f"plots/{name}.html", figure.to_html(include_plotlyjs=True))

    def log_text(self, name: str, text: str) -> None:
        """Show the text as the artifact `name`, a path with its suffix."""
        self._upload(name, lambda path: path.write_text(text, encoding="utf-8"))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy the file into the artifact folder."""
        self._upload(f"{folder}/{path.name}" if folder else path.name, lambda copy: shutil.copy(path, copy))

    def describe(self, markdown: str) -> None:
        """Show the text as the run's description."""
        self._tag("mlflow.note.content", markdown)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish: an exception failed the sweep, an interruption, which is none, killed it."""
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    def finish(self, status: RunStatus) -> None:
        """Close the runs, the parent with `status`, trials by their standing; wait a while until all is sent.

        A trial whose job is still out was cut short: its run is KILLED until a later sweep goes on with it.
        """
        for name, said in self._said.items():
            if name != SWEEP and said.status == "RUNNING":
                self._say(Entry(run=name, status=Status("KILLED", now_ms())))
        self._say(Entry(status=Status(status, now_ms())))
        waits = DRAIN_SECONDS if status == "FINISHED" else STOPPED_SECONDS
        if not self.drain(waits):
            _logger.warning(
                "MLflow at %s still lacks %s. They are kept in %s. Once it answers, run the same command "
                "again: what is done is found, and the rest is sent.",
                self._uri,
                self._writer.missing(),
                self._journal.folder,
            )
        self.close()

    def close(self) -> None:
        """Send no more; the runs stay as they are. Another tracker sends the rest."""
        self._writer.stop(STOPPED_SECONDS)
        self._journal.close()

    def _describe(self, record: SweepRecord) -> None:
        """Show the record on the parent run; a later one adds new parameters and replaces the config."""
        said, dataset = self._of(SWEEP), dataset_of(record)
        self._say(
            Entry(
                params=new_params(record.params, said.params),
                dataset=None if dataset == said.dataset else dataset,
                status=None if said.status == "RUNNING" else Status("RUNNING"),
            )
        )
        self.log_text("config.yaml", redact(record.composed_config))

    def _tag(self, key: str, value: str) -> None:
        value = redact(value)
        if self._of(SWEEP).tags.get(key) != value:
            self._say(Entry(tags={key: value}))

    def _upload(self, artifact: str, write: Callable[[Path], object]) -> None:
        path = self._journal.artifacts / artifact
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        write(aside)
        aside.replace(path)
        self._say(Entry(artifact=artifact))

    def _of(self, run: str) -> Said:
        return self._said.setdefault(run, Said())

    def _say(self, entry: Entry) -> None:
        if entry != Entry(run=entry.run):
            self._journal.append(entry)
            self._of(entry.run).take(entry)


def _key(record: SweepRecord) -> str:
    """A folder's name for the sweep's own run: a study and a training of one experiment have one each."""
    return hashlib.sha256(f"{record.name}\n{record.fingerprint}".encode()).hexdigest()[:12]
