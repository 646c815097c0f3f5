"""Who drives a study: one living process, whatever the machine and folder that others start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy import Engine, event, text

from sweep.driver import held, holder, in_use, this_process
from sweep.errors import OutageError, StudyError

# PostgreSQL cuts the name of an application here.
_LONGEST_NAME = 63
_RACES = 5
# The server frees an advisory lock when its session ends, be it by a kill. By these it takes the session of a
# machine that vanished for ended within a minute, not after two hours.
_KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
# Schemas of one database may hold studies of one name.
_KEY = "hashtextextended('sweep/' || current_schema() || '/' || {study}, 0)"
# Of the driver that took the lock last, beside the study's other entries in Optuna's own table.
_MARK = "driver"
_MARKED = """
SELECT value_json FROM study_user_attributes JOIN studies USING (study_id) WHERE study_name = %s AND key = %s
"""
_MARKING = """
INSERT INTO study_user_attributes (study_id, key, value_json)
SELECT study_id, %s, %s FROM studies WHERE study_name = %s
ON CONFLICT (study_id, key) DO UPDATE SET value_json = excluded.value_json
"""
_MYSELF = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_HOLDER = f"""
SELECT pid, backend_start::text, application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint << 32 | objid::bigint = {_KEY}
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def only_writer(storage: BaseStorage, study: str) -> Iterator[None]:
    """Hold the study of this name in a storage that `open_storage` opened.

    In PostgreSQL its one connection holds it, so only who holds the study writes to it. A connection that is
    lost gives it up; the next one takes it again. Of a file of SQLite, a file beside it is locked. Raises
    StudyError, with the process that holds the study, if there is one, be it only after an outage, or that
    drove it during one; OSError where a file system has no locks.
    """
    engine = _engine(storage)
    if engine is not None and engine.dialect.name == "postgresql":
        with _session_lock(engine, study):
            yield
        return
    file = _lock_file(engine, study)
    with held(file, f"The study {study!r}") if file is not None else nullcontext():
        yield


def writer_of(storage: BaseStorage, study: str) -> str | None:
    """Which living process holds the study, None if none does; in a file of SQLite, on this machine alone."""
    engine = _engine(storage)
    if engine is not None and engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            found = connection.execute(text(_HOLDER.format(study=":study")), {"study": study}).first()
        return found.application_name if found else None
    file = _lock_file(engine, study)
    return holder(file) if file is not None else None


@contextmanager
def _session_lock(engine: Engine, study: str) -> Iterator[None]:
    take = _Session(study).take
    engine.dispose()
    event.listen(engine, "connect", take)
    try:
        with engine.connect():
            pass
        yield
    finally:
        event.remove(engine, "connect", take)
        engine.dispose()


class _Session:
    """The driver's session in PostgreSQL, one after the other."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._former: tuple[int, str] | None = None
        self._mark = json.dumps({"process": this_process(), "id": uuid4().hex})

    def take(self, connection: Any, record: object) -> None:
        """Take the study's lock for this connection, which is closed where that fails."""
        try:
            self._take(connection)
        except BaseException:
            connection.close()
            raise

    def _take(self, connection: Any) -> None:
        with closing(connection.cursor()) as cursor:
            settings = {"application_name": this_process()[:_LONGEST_NAME], **_KEEPALIVE}
            for setting in settings.items():
                cursor.execute("SELECT set_config(%s, %s, false)", setting)
            connection.commit()
            for _ in range(_RACES):
                if self._takes(cursor, "pg_try_advisory_lock"):
                    break
                connection.commit()
                cursor.execute(_HOLDER.format(study="%s::text"), [self._study])
                if found := cursor.fetchone():
                    self._oust(cursor, *found)
                    break
            else:
                raise OutageError(f"the lock of study {self._study!r} changes hands")
            self._leave_mark(cursor)
            cursor.execute(_MYSELF)
            self._former = tuple(cursor.fetchone())
            connection.commit()

    def _leave_mark(self, cursor: Any) -> None:
        """By which a driver that lost the lock learns that another had it; none on a study still to come."""
        cursor.execute(_MARKED, [self._study, _MARK])
        found = cursor.fetchone()
        if self._former is not None and found is not None and found[0] != self._mark:
            other = json.loads(found[0])["process"]
            raise StudyError(
                f"The study {self._study!r} was driven by {other} while this process had lost the database: "
                "what it knows of the study is out of date. It has written nothing since. Start the same "
                "command again: it goes on with what is stored."
            )
        cursor.execute(_MARKING, [_MARK, self._mark, self._study])

    def _oust(self, cursor: Any, pid: int, begun: str, name: str) -> None:
        """Take the lock from a session of this driver that the server still believes in."""
        if (pid, begun) != self._former:
            raise in_use(f"The study {self._study!r}", name)
        cursor.execute("SELECT pg_terminate_backend(%s), set_config('lock_timeout', '10s', true)", [pid])
        self._takes(cursor, "pg_advisory_lock")

    def _takes(self, cursor: Any, how: str) -> bool:
        cursor.execute(f"SELECT {how}({_KEY.format(study='%s::text')})", [self._study])
        return bool(cursor.fetchone()[0])


def _engine(storage: BaseStorage) -> Engine | None:
    """Of a storage in a database."""
    inner = storage._backend if isinstance(storage, _CachedStorage) else storage
    return inner.engine if isinstance(inner, RDBStorage) else None


def _lock_file(engine: Engine | None, study: str) -> Path | None:
    """Beside the file of a database in SQLite, None for any other."""
    if engine is None or engine.dialect.name != "sqlite":
        return None
    with engine.connect() as connection:
        name = connection.execute(text("SELECT file FROM pragma_database_list WHERE name = 'main'")).scalar()
    return Path(f"{name}.{study}.lock") if name else None
