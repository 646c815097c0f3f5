"""A network between the driver and a database, which loses what it is told to lose."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Literal, get_args

# Of a commit: its answer; the commit itself; its answer, while the server takes the connection for alive.
Loss = Literal["answer", "request", "answer, unnoticed"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
# How PostgreSQL ends an answer outside of a transaction.
_READY = b"Z\0\0\0\5I"


class Proxy:
    """Forwards connections to a port of 127.0.0.1.

    losses: asked at each commit what of it is lost, None for nothing. With it the connection is.
    """

    def __init__(self, port: int, losses: Callable[[], Loss | None]) -> None:
        self._target = port
        self._losses = losses
        self.lost: list[Loss] = []
        # Of connections that the server takes for alive.
        self._kept: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._welcome, daemon=True).start()

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for one in self._kept:
            one.close()

    def _welcome(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        loss: Loss | None = None
        while loss != "request":
            ready, _, _ = select.select([client, server], [], [])
            link = ready[0]
            said = _received(link)
            if not said:
                break
            if link is client and b"COMMIT" in said:
                loss = self._losses()
            if link is client and loss != "request":
                server.sendall(said)
            elif loss is None:
                client.sendall(said)
            elif said.endswith(_READY):
                break
        if loss is not None:
            self.lost.append(loss)
        client.close()
        if loss == "answer, unnoticed":
            self._kept.append(server)
        else:
            server.close()


def _received(link: socket.socket) -> bytes:
    try:
        return link.recv(1 << 20)
    except OSError:
        return b""
