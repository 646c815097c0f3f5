from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.tracking.store import connect
from tests.tracking.sweeps import Shop, close_all


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def shop(shop_folder: Path) -> Shop:
    uri = f"sqlite:///{shop_folder}/mlflow.db"
    with contextlib.chdir(shop_folder):
        connect(uri)
    return Shop(uri, shop_folder)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    yield
    close_all()
    assert list(folder.iterdir()) == [], "tracking must not write into the working directory of a test"
