"""A worker on a node of a Ray cluster, as the driver tells and hears it."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray._private import state
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from sweep.backends.messages import Raised
from sweep.backends.ray_post import Heard, Hire, Post
from sweep.backends.seat import End
from sweep.errors import ConfigError

# For a worker to exit by itself, and for the way there and back.
_END_SECONDS = 15
_REASON_LENGTH = 300
_NODE_DIED = "its node has died"
# That Ray gives each node by itself.
_NODE_LABEL = "ray.io/node-id"


class Remote:
    """A `Post` that was asked of the cluster, which places it when a node has room, and its worker.

    avoided: ids of nodes where it is not to be. awaited: what Ray answers next, its place at first. node: the
    id of where it is, empty while that is not known. ended: whether it was given up.
    """

    def __init__(
        self, *, cpus: float, gpus: float, environment: Mapping[str, str | None], avoided: Collection[str]
    ) -> None:
        # Its types have no word of actors with several threads.
        as_actor: Any = ray.remote
        elsewhere = {_NODE_LABEL: f"!in({','.join(sorted(avoided))})"} if avoided else {}
        kind = as_actor(
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency_groups={"ear": 1, "mouth": 1},
            label_selector=elsewhere,
        )(Post)
        self._post: Any = kind.remote(environment)
        self.node, self._host = "", "a node of the cluster"
        self._inbox: deque[bytes] = deque()
        self._silent = ""
        self._lost: RayError | None = None
        self.ended = False
        self.awaited = self._post.place.remote()

    def settle(self) -> None:
        """Learn where it is, once that was answered. One that is lost by then tells so when started."""
        try:
            self.node, self._host = ray.get(self.awaited)
        except RayError as error:
            self._lost = error
            if isinstance(error, RayActorError) and error.actor_init_failed:
                # It could not tell, and Ray's words name an address at most.
                self.node = state.actors(self._post._actor_id.hex()).get("Address", {}).get("NodeID", "")
                hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
                self._host = hosts.get(self.node, self._host)

    @property
    def place(self) -> str:
        """In words."""
        return f"{self._host}, node {self.node or 'unknown'}"

    def begin(self, hire: Hire) -> Remote:
        """Start the worker; this."""
        self.awaited = self._post.start.options(concurrency_group="ear").remote(hire)
        return self

    def listen(self) -> None:
        """Take in what is there to be heard; waits for it."""
        try:
            heard: Heard = ray.get(self.awaited)
        except RayActorError as error:
            self._lost, self._silent = error, "gone"
            if error.actor_init_failed:
                self._inbox.append(pickle.dumps(Raised(_unfit(error, self.place), "")))
            return
        except RayError as error:
            self._lost, self._silent = error, "gone"
            return
        self._inbox.extend(heard.messages)
        self._silent = heard.end
        if not heard.end:
            self.awaited = self._post.receive.options(concurrency_group="ear").remote()

    @property
    def speaks(self) -> bool:
        """Whether `receive` would say something, were it only that nothing follows."""
        return bool(self._inbox or self._silent)

    def receive(self) -> bytes:
        if self._inbox:
            return self._inbox.popleft()
        assert self._silent
        raise BlockingIOError if self._silent == "stuck" else EOFError

    def send(self, message: bytes) -> None:
        self._post.send.options(concurrency_group="mouth").remote(message)

    def end(self, *, wait: bool) -> End:
        self.ended = True
        if self._lost is not None:
            end = self._end_of(self._lost)
        elif self.node:
            end = self._asked_to_end(wait=wait)
        else:
            end = End("was not placed")
        # What nobody answers for may be alive, out of reach: its messages have no way to go any more.
        ray.kill(self._post)
        return end._replace(how=f"on {self._host} {end.how}")

    def _asked_to_end(self, *, wait: bool) -> End:
        try:
            end: End = ray.get(self._post.end.remote(wait=wait), timeout=_END_SECONDS)
        except RayError as error:
            return self._end_of(error)
        return end

    def _end_of(self, lost: RayError) -> End:
        if isinstance(lost, ActorUnavailableError):
            return End("can't be reached any more", with_node=True)
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        # Of one that was lost before it told its place, only Ray's words say why.
        if self.node not in alive if self.node else _NODE_DIED in str(lost):
            return End("was lost, with its node", with_node=True)
        return End(f"was ended by Ray: {_last_line(lost)}")


def ready(awaited: Iterable[Any], seconds: float) -> Sequence[Any]:
    """Which of these Ray has an answer for; waits so long for the first."""
    refs = list(awaited)
    if not refs:
        time.sleep(seconds)
        return ()
    if not ray.wait(refs, num_returns=1, timeout=seconds)[0]:
        return ()
    answered: Sequence[Any] = ray.wait(refs, num_returns=len(refs), timeout=0)[0]
    return answered


def _unfit(error: RayError, place: str) -> ConfigError:
    return ConfigError(
        f"backend=ray: {place} of the cluster, can't run workers: {_last_line(error)} Install the same "
        "version of sweep on every node, with pip install 'sweep[ray]'."
    )


def _last_line(error: RayError) -> str:
    return str(error).strip().splitlines()[-1].strip()[-_REASON_LENGTH:]
