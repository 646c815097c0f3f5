from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sweep.tracking.store import connect
from tests.tracking.sweeps import Shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with contextlib.chdir(folder):
        connect(uri)
    return Shop(uri, folder)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == [], "tracking must not write into the working directory of a test"
