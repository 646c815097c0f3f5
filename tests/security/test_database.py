"""The password of the study's database is told to nobody, whatever becomes of the database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from sqlalchemy import make_url

from sweep.__main__ import sweep
from sweep.commands import run_command
from sweep.redaction import HIDDEN
from sweep.search.storage import open_stored
from sweep.search.stored import read_study
from tests.postgres import Postgres
from tests.security.test_secrets import FAST, found, results
from tests.test_postgresql import SWEEP, started, wait_for

pytestmark = pytest.mark.slow

PLAIN, QUOTED = "plantedword", "plan/ted:pass@word %41"


def url_of(postgres: Postgres, name: str, password: str) -> str:
    """Of a new database, for a user of its name who must give the password."""
    postgres.create_user(name, password)
    place = make_url(postgres.create(name))
    return f"{place.drivername}://{name}:{quote(password, safe='')}@{place.host}:{place.port}/{name}"


def told(said: str, *places: Path) -> list[str]:
    """Where the passwords are: in what was said, or in these places."""
    secrets = (PLAIN, QUOTED, quote(QUOTED, safe=""))
    return found(secrets, subprocess.CompletedProcess((), 0, said, ""), *places)


def test_a_sweep_tells_no_password_of_its_database(postgres: Postgres, tmp_path: Path) -> None:
    """Nor where the database goes down meanwhile."""
    url, folder = url_of(postgres, "sweeps", QUOTED), tmp_path / "here"
    process = started([*SWEEP, "budget.trials=6", f"storage={url}"], folder)
    wait_for("  trial ", process, folder, times=2)
    workers = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
    assert workers
    assert told("\n".join(workers)) == []
    postgres.stop(immediate=True)
    # Trial 1, which waits for it, ends while the database is away.
    (folder / "runs/smoke/go").touch()
    wait_for("The study's database can't be reached", process, folder)
    postgres.start()
    assert process.wait(300) == 0, (folder / "log").read_text()
    assert told((folder / "log").read_text(), *results(folder)) == []
    for reader in ("sweep.status", "sweep.report"):
        command = [sys.executable, "-m", reader, "+experiment=smoke", f"storage={url}"]
        assert started(command, folder).wait(300) == 0, (folder / "log").read_text()
        assert told((folder / "log").read_text(), *results(folder)) == []
    stored = open_stored(url)
    study = read_study(stored, "smoke")
    kept = repr(stored.get_study_user_attrs(stored.get_study_id_from_name("smoke")))
    stored._backend.engine.dispose()  # type: ignore[attr-defined]
    assert told(kept) == []
    # It was asked for, and hidden.
    assert study.notes.asked is not None
    assert f"storage={url.replace(quote(QUOTED, safe=''), HIDDEN)}" in study.notes.asked.overrides


@pytest.mark.parametrize("password", [PLAIN, QUOTED])
def test_a_refused_connection_tells_no_password(
    password: str,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"refusing_{len(password)}"
    url = url_of(postgres, name, password)
    for given, reason in (
        (f"{url.removesuffix(name)}absent", 'database "absent" does not exist'),
        (url.replace("@", "2@"), f'password authentication failed for user "{name}"'),
    ):
        assert run_command("sweep", [*FAST, f"storage={given}"], sweep) == 2
        said = "".join(capfd.readouterr())
        assert reason in said
        assert told(said) == []
