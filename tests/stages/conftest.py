"""A study to confirm, and what confirmation finds of it."""

from __future__ import annotations

import pytest

from sweep.config import compose
from sweep.evaluation.guards import Guards
from sweep.search.study import Study
from sweep.stages.confirm import OPENED, Confirmed
from sweep.types import Job
from tests.stages.finished import (
    confirmed,
    finished,
    synthetic,
)


@pytest.fixture(scope="session")
def guards() -> Guards:
    return compose(["+experiment=smoke"]).guards


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Whose defaults are poor and whose best trial is clearly better."""
    return finished(synthetic(tmp_path_factory.mktemp("study")))


@pytest.fixture
def study(searched: Study) -> Study:
    """The same, its test rows never opened."""
    searched.note(OPENED, [])
    return searched


@pytest.fixture(scope="session")
def plain(
    searched: Study, guards: Guards, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Confirmed, list[Job]]:
    searched.note(OPENED, [])
    return confirmed(searched, tmp_path_factory.mktemp("plain"), guards)
