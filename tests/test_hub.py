"""Why the hub refuses: real answers of a server on this machine, in words with what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sweep.engines.model import Pretrained
from sweep.errors import DataError, ModelError
from sweep.hub import require

MODEL = Pretrained(path="us/ours", revision=None, dtype="float32", trust_remote_code=False)


class Hub(BaseHTTPRequestHandler):
    """Refuses everything as the hub does, by the status and the code that the class holds."""

    status, code = 403, "GatedRepo"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a hub that refuses; no copy of a repository is on this machine."""
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_gated_model_says_where_to_accept_its_terms(hub: str) -> None:
    with pytest.raises(ModelError) as error:
        MODEL.load()
    assert type(error.value.__cause__).__name__ == "GatedRepoError"
    assert str(error.value) == (
        f"model.path=us/ours: its owner hands it out on terms. Accept them at {hub}/us/ours, then sign in "
        "with `hf auth login`."
    )


def test_a_name_that_the_hub_does_not_know_asks_for_its_spelling(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "status", 401)
    monkeypatch.setattr(Hub, "code", "RepoNotFound")
    with pytest.raises(DataError, match=r"^data\.path=us/ours: the hub has nothing of that name.*spelling"):
        require("us/ours", "dataset", refusal=DataError, key="data.path")


@pytest.mark.usefixtures("hub")
def test_what_can_be_no_hub_id_is_told_so() -> None:
    with pytest.raises(ModelError, match=r"^model\.path=our model: is neither a folder here nor the form of"):
        require("our model", "model", refusal=ModelError, key="model.path")


@pytest.mark.usefixtures("hub")
def test_without_the_hub_the_answer_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the hub gives no answer \(ConnectError: .*name its folder"):
        MODEL.load()


@pytest.mark.usefixtures("hub")
def test_a_copy_on_this_machine_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "models--us--ours" / "snapshots").mkdir(parents=True)
    require("us/ours", "model", refusal=ModelError, key="model.path")
