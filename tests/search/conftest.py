from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.engines.synthetic import Synthetic
from sweep.search.study import Study
from sweep.types import Observer
from tests.studies import run_study, synthetic_engine


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    return synthetic_engine(tmp_path)


@pytest.fixture
def run(synthetic: Synthetic) -> Callable[..., Study]:
    def run(study: Study, *observers: Observer) -> Study:
        return run_study(study, synthetic, *observers)

    return run
