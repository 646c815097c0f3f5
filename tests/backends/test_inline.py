"""The engine in this process keeps every backend's promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweep.backends.inline import Inline
from sweep.types import Backend, Engine
from tests.contracts.backend import BackendContract


class TestInline(BackendContract):
    @staticmethod
    def make_backend(make_engine: Callable[[], Engine], folder: Path) -> Backend:
        return Inline(make_engine=make_engine)
