from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.sweeps import Outline, Sweep, outline


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Outline]:
    """The search that nothing happens to. What is drawn for a trial does not depend on how many follow."""
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), trials=60, workers=1)
    sweep.run()
    return outline(sweep.storage)
