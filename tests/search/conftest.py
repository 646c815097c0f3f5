from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.engines.synthetic import Synthetic
from sweep.search.study import Study
from sweep.types import Observer
from tests.postgres import Postgres
from tests.studies import run_study, synthetic_engine


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    return synthetic_engine(tmp_path)


@pytest.fixture
def run(synthetic: Synthetic) -> Callable[..., Study]:
    def run(study: Study, *observers: Observer) -> Study:
        return run_study(study, synthetic, *observers)

    return run


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty storage, each kind that holds a study for one driver."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sweep.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create(request.node.name)
