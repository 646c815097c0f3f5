from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweep.errors import ConfigError
from sweep.redaction import redact
from tests.tracking.sweeps import Shop, Sweep


def test_opening_a_new_store_prints_nothing(tmp_path: Path) -> None:
    code = (
        "from sweep.tracking.store import connect; connect('sqlite:///made/here.db').create_experiment('a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "made/here.db").is_file()


@pytest.mark.parametrize(
    "uri",
    ["nonsense://x", "file:///tmp/mlruns", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////proc/no/x.db"],
)
def test_an_unusable_address_is_an_error_without_its_password(uri: str, tmp_path: Path) -> None:
    sweep = Sweep()
    with pytest.raises(ConfigError, match=r"tracking\.uri=.* could not be opened") as caught:
        sweep.tracker(Shop(uri, tmp_path), "x")
    assert "secret" not in str(caught.value)


def test_user_and_password_of_an_address_are_hidden() -> None:
    assert redact("http://me:pass@host:5000/a b@c") == "http://***@host:5000/a b@c"
