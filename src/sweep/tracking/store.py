"""Reaching the MLflow store, and what its failures are called. No address is told with its password."""

from __future__ import annotations

import logging
import os
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """The `tracking` node. uri: of the MLflow store. register: whether production training does so."""

    uri: str
    experiment: str
    register: bool


def connect(uri: str) -> MlflowClient:
    """A quiet client, as `client_of`. Raises ConfigError if the store can't be opened."""
    try:
        return client_of(uri)
    except Exception as error:  # SQLAlchemy, drivers and MLflow share no base class.
        raise ConfigError(unreachable(uri, error)) from error


def client_of(uri: str) -> MlflowClient:
    """A quiet client. Creates the database of an `sqlite:///` address and its folder.

    Raises what the database's driver raises if it does not answer.
    """
    quieten()
    import mlflow

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # Prints the traceback of each error that it also raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    _probe(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def quieten() -> None:
    """MLflow sends no telemetry, loads no pickles and gives up a silent server after 30 s, unless the
    environment says otherwise.
    """
    for name, value in {
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Retries would repeat `create_run` behind our back, which makes a second run.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)


def _probe(uri: str) -> None:
    """Nothing, if a database answers: MLflow tries one that does not for 100 s before it says so."""
    from sqlalchemy import create_engine, make_url

    if not uri.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return
    url = make_url(uri)
    if url.drivername.startswith("sqlite") and url.database:
        place = Path(url.database)
        place.parent.mkdir(parents=True, exist_ok=True)
        if url.database != ":memory:" and not url.query and not place.exists():
            _make(place)
    engine = create_engine(url)
    engine.connect().close()
    engine.dispose()


def _make(place: Path) -> None:
    """An empty database with MLflow's tables, whole or absent, unless another process makes one meanwhile.

    On the disk MLflow's sixty migrations wait for it hundreds of times, and what a kill among them leaves
    no start can open.
    """
    # This one names all tables.
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    try:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
        # Made aside and linked: what another process has put there is never replaced.
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as aside:
            whole = Path(aside) / place.name
            with engine.connect() as connection:
                connection.exec_driver_sql("VACUUM INTO ?", (str(whole),))
            with whole.open("rb") as written:
                os.fsync(written.fileno())
            # Where there are no hard links, MLflow makes its database by itself.
            with suppress(OSError):
                os.link(whole, place)
    finally:
        engine.dispose()


def first_line(error: Exception) -> str:
    """What the error says, in one line without passwords."""
    return str(redact(next(iter(str(error).strip().splitlines()), type(error).__name__)))[:300]


def unreachable(uri: str, error: Exception) -> str:
    """That the store could not be opened, why, and what to do."""
    return (
        f"tracking.uri={redact(uri)} could not be opened: {first_line(error)}. It must be a running MLflow "
        "server or a database. Start the server, correct the address, or set "
        "tracking.uri=sqlite:///mlflow.db, which needs no server."
    )


def refused(error: Exception) -> bool:
    """Whether the store answered, and would answer the same again, such as for a run that is gone."""
    return getattr(error, "error_code", None) in _REFUSALS


def listed(names: Sequence[str]) -> str:
    """The names that exist, for an error about one that does not."""
    return textwrap.shorten(", ".join(names), 500, placeholder=" ...") or "nothing yet"
