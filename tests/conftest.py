"""What holds for every test."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from tests.postgres import Postgres, running


def pytest_collection_finish() -> None:
    """Modules and tests stay: no collection of any test looks through them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tell_fault(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Takes what a fault did, for the table of `benchmarks/faults.py`.

    injected: how often. trials: expected, lost and doubled of them; runs: the same of MLflow's.
    seconds: until the work went on. killed: of what how many, where there are several.
    """

    def tell(
        *,
        injected: int,
        trials: Sequence[int] = (),
        runs: Sequence[int] = (),
        seconds: float | None = None,
        killed: Mapping[str, int] | None = None,
    ) -> None:
        told = {"injected": injected, "trials": [*trials], "runs": [*runs], "seconds": seconds}
        record_property("fault", told | ({"killed": dict(killed)} if killed else {}))

    return tell


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of the module's own."""
    with running() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _stores_of_this_module_only() -> Iterator[None]:
    """MLflow keeps a store per address: a relative one stays in the folder where it was first opened."""
    yield
    if "mlflow" not in sys.modules:
        return
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs
    from mlflow.tracking._model_registry.registry import ModelRegistryStoreRegistry
    from mlflow.tracking._tracking_service.registry import TrackingStoreRegistry

    for store in (Runs, Models):
        for engine in store._engine_map.values():
            engine.dispose()
        store._engine_map.clear()
    for registry in (TrackingStoreRegistry, ModelRegistryStoreRegistry):
        registry._get_store_with_resolved_uri.cache_clear()
