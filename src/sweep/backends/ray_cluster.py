"""The way into a Ray cluster: one that is there, or one of this machine alone."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import ConfigError

# Messages alone pass through it; what is larger goes to disk.
_STORE_BYTES = 200 * 2**20

_CONNECT_SECONDS = 10

_logger = logging.getLogger("sweep.backends")

# Ray asks the clouds' metadata services where it runs, usage statistics or not. This proxy answers nothing.
_NOWHERE = {"http_proxy": "http://127.0.0.1:9"}


def join(address: str) -> None:
    """Become a driver of the cluster at that address. Raises ConfigError if none answers or lets it in."""
    # One attempt of Ray's takes most of a minute, and it makes twenty.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    import ray

    try:
        _require_listener(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"backend.address: no Ray cluster that lets this driver in is at {address!r}: "
            f"{' '.join(str(error).split())}. Run it on a node of the cluster, with its token, and give "
            "host:port of the head node, or auto; or write backend.address=null for one of this machine."
        ) from error
    if os.environ.get("RAY_AUTH_MODE") != "token":
        _logger.warning(
            "The Ray cluster at %s asks for no token: whoever reaches its ports can run code on every node. "
            "Start its nodes, and the sweep, with RAY_AUTH_MODE=token (docs/clusters.md).",
            address,
        )


def _require_listener(address: str) -> None:
    """Nothing, or OSError: nobody listens there. An address of another kind is left to Ray."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def start_here(*, cpus: int, gpus: int) -> Mapping[str, str | None]:
    """Start a cluster that ends with this process; by what its workers' environment must differ from it.

    It listens on the loopback address alone, and to those alone who can read this user's files.
    """
    home = _home()
    # Read while Ray is imported, some of it.
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        # Its name says little: without it, Ray puts the machine's outer address in the place of 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # It would end itself where its agents are slow to start, on a machine with much else to do.
        "RAY_agent_register_timeout_ms": "300000",
    }
    import ray

    before = {name: os.environ.get(name) for name in _NOWHERE}
    os.environ |= _NOWHERE
    try:
        with _signals_kept():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(home),
            )
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    return before


@functools.cache
def _home() -> Path:
    """A folder of this process for what Ray writes, with the token in it; Ray reads that once."""
    # Sockets lie in it, whose paths may not be long.
    home = Path(tempfile.mkdtemp(prefix="sweep-ray-", dir="/tmp"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return home


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts handlers of its own in the place of the driver's, which end it without a checkpoint.

    One in Python, where it begins, and one beneath it, near the end: a SIGTERM just then still aborts.
    """
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    install, handler = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = install
        signal.signal(signal.SIGTERM, handler)
