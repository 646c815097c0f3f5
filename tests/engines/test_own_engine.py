"""The engine of docs/extend.md keeps every engine's promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.engines.inputs import Inputs
from sweep.types import Engine
from tests.contracts.engine import EngineContract
from tests.documents import EXTEND, files


@pytest.fixture(scope="module", autouse=True)
def _importable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("project")
    (folder / "parabola.py").write_text(files(EXTEND)["parabola.py"], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


class TestParabola(EngineContract):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        from parabola import Parabola

        return Parabola(inputs=inputs, best=1e-3)
