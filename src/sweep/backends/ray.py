"""Workers on the nodes of a Ray cluster, as many as it has room for; a node that goes costs no trial."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sweep.backends.crew import Crew
from sweep.backends.devices import cores, visible_gpus
from sweep.backends.seat import Seat
from sweep.engines.remote import is_url
from sweep.errors import ConfigError
from sweep.schema import require
from sweep.types import Done, Engine

if TYPE_CHECKING:
    from sweep.backends.ray_remote import Remote

_WAITING_SECONDS = 60
# After a worker could not start on a node where others could.
_PAUSE_SECONDS = 60

_logger = logging.getLogger("sweep.backends")


class Ray(Crew):
    """A crew on a Ray cluster, which places each worker on a node that has room for it.

    logs: the folder of the workers' logs, one file each. checkpoints: the folder or URL of states. All nodes
    must see both, and each worker looks. address: None for a cluster of this machine alone, that ends with
    the driver; "auto" or host:port for one that is there. workers: at most so many; None for as many as
    there is room for, at any time: where all have work, more are asked for, which an autoscaler sees. One
    that was idle for `idle_seconds` is let go. Raises ConfigError for what this machine has no devices for.
    """

    def __init__(
        self,
        *,
        make_engine: Callable[[], Engine],
        logs: str,
        checkpoints: str,
        address: str | None,
        workers: int | None,
        gpus_per_worker: float,
        cpus_per_worker: float,
        idle_seconds: float,
        start_seconds: float,
        silent_seconds: float,
        deaths: int,
    ) -> None:
        super().__init__(
            make_engine=make_engine,
            start_seconds=start_seconds,
            silent_seconds=silent_seconds,
            deaths=deaths,
        )
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("backend=ray: Ray is not installed. Run pip install 'sweep[ray]'.")
        _require_address(address)
        require("backend.workers", workers, workers is None or workers >= 1, "at least 1, or null")
        whole = gpus_per_worker <= 1 or gpus_per_worker == int(gpus_per_worker)
        require(
            "backend.gpus_per_worker",
            gpus_per_worker,
            gpus_per_worker >= 0 and whole,
            "a share of a GPU from 0 to 1, or a whole number of them",
        )
        require("backend.cpus_per_worker", cpus_per_worker, cpus_per_worker > 0, "above 0")
        require("backend.idle_seconds", idle_seconds, idle_seconds >= 0, "at least 0")
        if address is None:
            workers = room_here(workers, gpus=gpus_per_worker, cpus=cpus_per_worker)
        self._address = address
        self._most = workers
        self._gpus = gpus_per_worker
        self._cpus = cpus_per_worker
        self._idle_seconds = idle_seconds
        self._logs = Path(logs).resolve()
        # By the key that says where.
        self._shared = {"output": self._logs}
        if not is_url(checkpoints):
            self._shared["checkpoints"] = Path(checkpoints).resolve()
        # A file in each, once the cluster was entered.
        self._marks: Mapping[str, Path] = {}
        # Ray itself is about to leave all GPUs visible to what takes none.
        self._environment: Mapping[str, str | None] = {} if gpus_per_worker else {"CUDA_VISIBLE_DEVICES": ""}
        # Asked for, by the number that the worker will have; then placed.
        self._asked: dict[int, Remote] = {}
        self._placed: dict[int, tuple[Remote, Seat[Remote]]] = {}
        # Nodes on which a worker was ready, and others on which one could not start.
        self._able: frozenset[str] = frozenset()
        self._avoided: frozenset[str] = frozenset()
        self._asks_not_before = -math.inf
        # Of places where none could start, and what follows.
        self._told: set[tuple[str, str]] = set()
        self._wanted_at = -math.inf
        self._waits_since: float | None = None

    def close(self) -> None:
        super().close()
        if self._marks:
            import ray

            # Ends what was asked for, too.
            ray.shutdown()
            for mark in self._marks.values():
                mark.unlink(missing_ok=True)
            self._marks = {}
        self._asked.clear()
        self._placed.clear()

    @property
    def devices(self) -> Sequence[float]:
        # Before it joins, nobody knows how many there will be.
        count = (self._most or 1) if not self._marks else len(self._placed)
        return (self._gpus or 1,) * count

    @property
    def _seats(self) -> Sequence[Seat[Remote]]:
        return [seat for remote, seat in self._placed.values() if not remote.ended]

    def _speaking(self, seconds: float) -> list[Seat[Remote]]:
        if not self._marks:
            time.sleep(seconds)
            return []
        from sweep.backends.ray_remote import ready

        working = [(seat, seat.worker) for seat in self._seats if seat.worker is not None]
        heard = [seat for seat, worker in working if worker.speaks]
        awaited = [worker.awaited for _, worker in working if not worker.speaks]
        answered = ready(
            [*awaited, *(remote.awaited for remote in self._asked.values())], 0 if heard else seconds
        )
        for _, worker in working:
            if not worker.speaks and worker.awaited in answered:
                worker.listen()
        return [seat for seat, worker in working if worker.speaks]

    # Growing and shrinking

    def _tend(self, *, wanted: bool) -> None:
        now = time.monotonic()
        if wanted:
            self._wanted_at = now
            self._enter()
        if not self._marks:
            return
        self._take_in()
        self._able |= {remote.node for remote, seat in self._placed.values() if seat.ready}
        self._let_go(now)
        if wanted and now >= self._asks_not_before:
            self._ask_for_more()
        self._tell_of_waiting(now)

    def _enter(self) -> None:
        """Join the cluster or start it, unless that is done. Nothing imports Ray before."""
        if self._marks:
            return
        from sweep.backends import ray_cluster

        self._marks = {key: _marked(folder) for key, folder in self._shared.items()}
        if self._address is None:
            differs = ray_cluster.start_here(cpus=cores(), gpus=len(visible_gpus()))
            self._environment = {**self._environment, **differs}
        else:
            ray_cluster.join(self._address)

    def _take_in(self) -> None:
        """What the cluster has placed gets a seat; the seats of those that ended go."""
        from sweep.backends.ray_remote import ready

        self._placed = {number: one for number, one in self._placed.items() if not one[0].ended}
        if not self._asked:
            return
        answered = ready([remote.awaited for remote in self._asked.values()], 0)
        for number, remote in list(self._asked.items()):
            if remote.awaited in answered:
                del self._asked[number]
                remote.settle()
                self._placed[number] = (remote, self._seat(number, remote))

    def _seat(self, number: int, remote: Remote) -> Seat[Remote]:
        from sweep.backends.ray_post import Hire

        log = self._logs / f"{number}.log"

        def hire(setting: bytes) -> Remote:
            return remote.begin(
                Hire(name=str(number), setting=setting, log=log, marks=self._marks, folder=Path.cwd())
            )

        return Seat(str(number), log=log, hire=hire, place=remote.place)

    def _has_others(self, seat: Seat[Remote]) -> bool:
        # What was asked for and not placed yet counts where it could start.
        remote, _ = self._placed[int(seat.name)]
        return super()._has_others(seat) or (bool(self._asked) and remote.node in self._able)

    def _give_up(self, seat: Seat[Remote]) -> str:
        remote, _ = self._placed[int(seat.name)]
        follows = "no other is started on that node"
        if not remote.node or remote.node in self._able:
            self._asks_not_before = time.monotonic() + _PAUSE_SECONDS
            follows = "another is tried in a minute"
        else:
            self._avoided |= {remote.node}
            # They would be placed there, too.
            self._take_back_asked()
        is_news = (seat.place, follows) not in self._told
        self._told.add((seat.place, follows))
        return follows if is_news else ""

    def _take_back_asked(self) -> None:
        for remote in self._asked.values():
            remote.end(wait=False)
        self._asked.clear()

    def _let_go(self, now: float) -> None:
        """What had nothing to do for a while, and what was asked for that has nothing to do."""
        if now - self._wanted_at > self._idle_seconds:
            self._take_back_asked()
        for remote, seat in self._placed.values():
            if seat.jobs or not seat.wants or now - seat.heard <= self._idle_seconds:
                continue
            if seat.worker is None:
                remote.end(wait=False)
            else:
                # It goes when it has cleared up; the others are not to wait for that.
                seat.answer(Done())

    def _ask_for_more(self) -> None:
        from sweep.backends.ray_remote import Remote

        # Twice as many each time: what can't be placed waits, and one that finds nothing to do is let go.
        most = 2 * max(1, len(self._placed)) if self._most is None else self._most
        taken = self._asked.keys() | self._placed.keys()
        free = (number for number in count() if number not in taken)
        for _ in range(most - len(taken)):
            self._asked[next(free)] = Remote(
                cpus=self._cpus, gpus=self._gpus, environment=self._environment, avoided=self._avoided
            )

    def _tell_of_waiting(self, now: float) -> None:
        if self._placed or not self._asked:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > _WAITING_SECONDS:
            import ray

            self._waits_since = math.inf
            there = ", ".join(f"{ray.cluster_resources().get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
            _logger.warning(
                "Still waiting for a node to have room for a worker and to start it. It takes %g CPUs and "
                "%g GPUs (backend.cpus_per_worker, backend.gpus_per_worker); the cluster has %s in all.",
                self._cpus,
                self._gpus,
                there,
            )


def _marked(folder: Path) -> Path:
    """A new file there, by which another machine can tell that it sees the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # Under a new name each time: a shared file system may remember for a while what was not there.
    for old in folder.glob("driver-" + "[0-9a-f]" * 32):
        old.unlink(missing_ok=True)
    mark = folder / f"driver-{uuid4().hex}"
    mark.touch()
    return mark


def room_here(workers: int | None, *, gpus: float, cpus: float) -> int:
    """How many workers this machine is to have. Raises ConfigError if it has no room for so many."""
    there = len(visible_gpus())
    room = int(cores() / cpus)
    if gpus:
        # Ray does not split a worker's share over two GPUs.
        room = min(room, there * int(1 / gpus) if gpus <= 1 else int(there / gpus))
    if room < (workers or 1):
        said = f"{workers} is more than the {room} that" if room else "there are none that"
        lower = "Write backend.gpus_per_worker=0" if gpus and not there else "Lower what each takes"
        cure = f"Write backend.workers={room}" if room else lower
        raise ConfigError(
            f"backend.workers: {said} this machine has room for, with "
            f"{cores()} cores and {there} GPUs, where each takes backend.cpus_per_worker={cpus:g} and "
            f"backend.gpus_per_worker={gpus:g}. {cure}, or give the backend.address of a cluster."
        )
    return workers or room


def _require_address(address: str | None) -> None:
    known = address is None or address == "auto" or re.fullmatch(r"[^\s:/]+:\d{1,5}", address)
    require("backend.address", address, known, "null, auto, or host:port of a cluster's head node")
