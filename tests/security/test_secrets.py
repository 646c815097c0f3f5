"""A planted secret is in nothing that a sweep prints, stores, tracks or leaves on disk."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.__main__ import sweep
from sweep.commands import run_command, run_reader
from sweep.composition import compose_plain
from sweep.redaction import HIDDEN, hidden, known_in, printable, redact, remember, remember_words
from sweep.search.storage import open_stored
from sweep.search.stored import read_study
from sweep.status import status
from sweep.tracking.best import read_best
from tests.security import spilling
from tests.security.spilling import ENVIRONMENT, HEADER, KEY, PLANTED
from tests.tracking.server import Server

FAST = ["+experiment=smoke", "engine=synthetic"]
ENGINE = f"_target_: spilling.Spilling\nheaders: {{Authorization: Bearer {HEADER}}}\n"
SAMPLER = "_target_: spilling.Sampler\napi_key: ???\nbreaks: false\n"
SPILLING = [
    "+experiment=smoke",
    "engine=spilling",
    "sampler=spilling",
    f"sampler.api_key={KEY}",
    "trusted_targets=[spilling]",
    "data.max_rows=200",
    "budget.trials=4",
]
# As people write them into an address; the drivers take them for one password each.
PASSWORDS = ("plan/ted:word", "plan@tedword")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an engine and a sampler that tell all they know, and what they know."""
    for group, text in (("engine", ENGINE), ("sampler", SAMPLER)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "spilling.yaml").write_text(text)
    shutil.copy(spilling.__file__, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, secret in ENVIRONMENT.items():
        monkeypatch.setenv(name, secret)
    return tmp_path


def started(*overrides: str) -> subprocess.CompletedProcess[str]:
    """`python -m sweep` in a process of its own."""
    command = [sys.executable, "-m", "sweep", *SPILLING, *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def found(secrets: tuple[str, ...], said: subprocess.CompletedProcess[str], *places: Path) -> list[str]:
    """Where the secrets are: in what was printed, or in a database, journal, log, report or artifact."""
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    texts = {"stdout": said.stdout.encode(), "stderr": said.stderr.encode()}
    texts |= {str(file): file.read_bytes() for file in files}
    assert len(texts) > len(places)
    return [f"{one} in {place}" for place, text in texts.items() for one in secrets if one.encode() in text]


def results(folder: Path) -> list[Path]:
    return [folder / name for name in ("sweep.db", "mlflow.db", "runs", "mlruns", "sweeps")]


class TestSweeps:
    def test_a_sweep_tells_none_of_the_secrets_that_it_is_given(self, folder: Path) -> None:
        said = started("backend=pool", "backend.workers=1")
        assert said.returncode == 0, said.stderr
        assert found(PLANTED, said, *results(folder)) == []
        # They were told, and hidden: in a trial's reason, in both logs, in what was asked, in what was found.
        study = read_study(open_stored("sqlite:///sweep.db"), "smoke")
        reasons = {one.trial.id: one.reason or "" for one in study.standings}
        assert reasons["1"].startswith("refused: ")
        assert HIDDEN in reasons["1"]
        assert study.notes.asked is not None
        assert f"sampler.api_key={HIDDEN}" in study.notes.asked.overrides
        assert f"api_key: '{HIDDEN}'" in study.notes.asked.config
        assert f"worker 0: asked with {{'Authorization': '{HIDDEN}" in said.stderr
        log = (folder / "runs/smoke/workers/0.log").read_text()
        for told in ("UserWarning: warned of", "LookupError: no access with"):
            assert f"{told} {{'Authorization': '{HIDDEN}" in log
        assert f"sampler.api_key={HIDDEN}" in read_best(folder / "sweeps/best/smoke.yaml").overrides

    def test_a_crash_tells_no_secret(self, folder: Path) -> None:
        said = started("sampler.breaks=true", "baseline=[]")
        assert said.returncode == 1
        assert f"LookupError: no access with {HIDDEN}" in said.stderr
        assert found(PLANTED, said, *results(folder)) == []

    @pytest.mark.slow
    def test_a_server_with_a_password_is_told_without_it(self, folder: Path, tmp_path: Path) -> None:
        server = Server(tmp_path)
        try:
            server.start()
            address = server.uri.replace("://", "://planted-user:plan%2Fted%40word@")
            said = started(f"tracking.uri={address}", "budget.trials=2")
            assert said.returncode == 0, said.stderr
        finally:
            server.kill()
        secrets = (*PLANTED, "planted-user", "plan%2Fted%40word", "plan/ted@word")
        assert found(secrets, said, *results(folder)) == []
        assert f"look   python -m webbrowser 'http://{HIDDEN}@127" in said.stdout


class TestErrors:
    @pytest.mark.parametrize("password", PASSWORDS)
    @pytest.mark.parametrize(
        "typed",
        [
            "storage=postgresql+psycopg://me:PASSWORD@127.0.0.1:9/db",
            "storage=postgresql+nodriver://me:PASSWORD@127.0.0.1:9/db",
            "storage=me:PASSWORD@127.0.0.1/db",
            "tracking.uri=http://me:PASSWORD@127.0.0.1:9",
            "tracking.uri=postgresql+psycopg://me:PASSWORD@127.0.0.1:9/db",
            "tracking.uri=nothing://me:PASSWORD@127.0.0.1:9/db",
            "seed=http://me:PASSWORD@host",
            "space.lora_rank=http://me:PASSWORD@host",
            "+trackin.uri=http://me:PASSWORD@host",
            "+backend.api_key=PASSWORD",
            "data.path=https://me:PASSWORD@host/rows.csv",
        ],
    )
    def test_an_error_hides_the_password(
        self, typed: str, password: str, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run_command("sweep", [*FAST, typed.replace("PASSWORD", password)], sweep) == 2
        said = "".join(capfd.readouterr())
        assert password not in said
        assert "tedword" not in said
        assert "ted:word" not in said

    def test_a_stopped_command_is_shown_without_its_password(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def stop(config: object) -> int:
            raise KeyboardInterrupt

        assert run_command("sweep", [*FAST, "storage=postgresql://me:plantedword@host/db"], stop) == 130
        assert f"storage=postgresql://me:{HIDDEN}@host/db" in capsys.readouterr().err

    def test_a_reader_hides_the_password(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        storage = "storage=postgresql+psycopg://me:plantedword@127.0.0.1:9/db"
        assert run_reader("sweep.status", [*FAST, storage], status) == 2
        assert "plantedword" not in capsys.readouterr().err


class TestConfiguration:
    @pytest.mark.parametrize(
        "value",
        [
            "${oc.env:PLANTED}",
            "${oc.env:ABSENT,${oc.env:PLANTED}}",
            "a ${oc.env:PLANTED} b",
            "${oc.${.k}:PLANTED}",
            "${oc.decode:'${.d}{oc.env:PLANTED}'}",
            "${oc.decode:'${.d}{oc.e${.v}:PLANTED}'}",
            "${oc.create:{a: '${.d}{oc.env:PLANTED}'}}",
            "${.other}",
        ],
    )
    def test_what_comes_from_the_environment_is_not_saved(
        self, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No name that tells: by its value nothing would know it.
        monkeypatch.setenv("PLANTED", "plantedword")
        (tmp_path / "conf/experiment").mkdir(parents=True)
        mine = f'best: {{k: env, v: nv, d: "$", other: "${{oc.env:PLANTED}}", x: "{value}"}}\n'
        (tmp_path / "conf/experiment/mine.yaml").write_text(f"# @package _global_\nname: mine\n{mine}")
        composed = compose_plain(["+experiment=mine", "objective=loss"], tmp_path)
        assert "plantedword" in str(composed.plain["best"]["x"])
        assert "plantedword" not in str(composed.redacted)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("api_key", "word"),
            ("hf_token", 123456),
            ("tokens", ["one", "two"]),
            ("clientSecret", "word"),
            ("key", "word"),
            ("passphrase", "word"),
            ("db_pass", "word"),
            ("headers", {"Authorization": "Bearer word"}),
            ("credentials", {"user": "word", "more": [{"x": "word"}]}),
        ],
    )
    def test_what_stands_under_a_secret_key_is_hidden(self, key: str, value: object) -> None:
        assert "word" not in str(shown := hidden({key: value}))
        assert "123456" not in str(shown)
        assert "one" not in str(shown)

    def test_what_merely_sounds_like_a_secret_is_shown(self) -> None:
        node = {
            "max_tokens": 96,
            "tokens": 7,
            "tokenizer": "gpt2",
            "api_key": None,
            "metric": {"token_accuracy": {"_target_: ": "x", "_target_": "a.B", "rows": 3}},
            "monkey": "business",
        }
        assert hidden(node) == node

    @pytest.mark.parametrize(
        ("text", "safe"),
        [
            ("postgresql://me:a/b@c:d@host/db", "postgresql://me:***@host/db"),
            ("see http://me:word@host, then go", "see http://***@host, then go"),
            ("https://token@host/a", "https://***@host/a"),
            ("sqlite:////home/me@work/a.db", "sqlite:////home/me@work/a.db"),
            ("models:/mine@champion", "models:/mine@champion"),
            ("host=a password='one two' port=1", "host=a password=*** port=1"),
            ("a?password=one&b=2", "a?password=***&b=2"),
            ("{'api_key': 'one two', 'a': 1}", "{'api_key': '***', 'a': 1}"),
            ('{"Authorization": "Basic bWU6"}', '{"Authorization": "***"}'),
            ("Authorization: Bearer word\nmore", "Authorization: ***\nmore"),
            ("data.max_tokens=8, 3 tokens", "data.max_tokens=8, 3 tokens"),
            ("+metric.token_accuracy._target_=a.B", "+metric.token_accuracy._target_=a.B"),
            ("+metric.token_accuracy.rows=3", "+metric.token_accuracy.rows=3"),
            ("sampler.credentials.api_key=word", "sampler.credentials.api_key=***"),
            ("+api_key.openai=word", "+api_key.openai=***"),
        ],
    )
    def test_secrets_are_known_by_where_they_stand(self, text: str, safe: str) -> None:
        assert redact(text) == safe
        assert redact(safe) == safe

    def test_secrets_are_known_by_their_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, secret in ENVIRONMENT.items():
            monkeypatch.setenv(name, secret)
        monkeypatch.setenv("HF_TOKEN_PATH", "/home/me/token")
        monkeypatch.setenv("SHORT_TOKEN", "sweep")
        remember({"storage": "postgresql://me:pla%2Fnted@host", "own": {"api_key": "planted-own"}})
        remember("postgresql://planted:planted@host")
        known = [secret for name, secret in ENVIRONMENT.items() if name != "CACHE_URL"]
        for secret in (*known, "planted-in-a-url", "planted%26db+pass", "pla/nted", "planted-own"):
            assert redact(f"got {secret!r}, sorry") == f"got {HIDDEN!r}, sorry"
        kept = "sweep in /home/me/token is planted, and hf_plantedplantedplantedX is another"
        assert redact(kept) == kept

    @pytest.mark.parametrize("number", [123456, 98765.25])
    def test_a_number_is_a_secret_like_any_other(self, number: float) -> None:
        remember({"sampler": {"password": number}, "engine": {"max_tokens": 654321}})
        kept = "of 654321 tokens, 1234567 and 0123456"
        assert redact(f"refused {number}, {kept}") == f"refused {HIDDEN}, {kept}"

    def test_line_ends_that_are_spelled_out_are_no_part_of_a_word(self) -> None:
        remember({"api_key": "plantedword"})
        lines = "key:\nplantedword\nand\tplantedword\r\n"
        assert redact(repr(lines)) == repr(lines.replace("plantedword", HIDDEN))
        assert redact("nplantedword") == "nplantedword"

    def test_a_secret_is_known_without_its_line_end_and_with_those_inside(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_TOKEN", "plantedtoken\n")
        secret = "-----BEGIN-----\nplanted\n-----END-----\n"
        remember({"private_key": secret})
        assert redact("got plantedtoken") == f"got {HIDDEN}"
        for shown in (secret, repr(secret), json.dumps(secret)):
            assert "planted" not in redact(f"got {shown}")

    def test_who_reads_a_value_is_told_the_secrets_that_are_in_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_TOKEN", "planted-token")
        remember({"api_key": "planted-key", "storage": "postgresql://me:planted-word@host"})
        assert known_in(pickle.dumps({"a": ["planted-key"]})) == {"planted-key"}
        assert known_in(pickle.dumps("planted-token")) == {"planted-token"}
        assert known_in(pickle.dumps("plantedkey")) == frozenset()

    def test_what_another_process_knew_is_hidden_as_texts_show_it(self) -> None:
        remember_words(["p%40ssword", "-----BEGIN-----\nplanted"])
        assert redact("with p@ssword and p%40ssword") == f"with {HIDDEN} and {HIDDEN}"
        assert "planted" not in redact(repr("-----BEGIN-----\nplanted"))

    def test_a_value_within_a_word_is_that_word(self) -> None:
        remember("postgresql://me:postgres@host")
        assert redact("postgresql://me:x@host and postgres") == "postgresql://me:***@host and ***"


def test_log_lines_and_terminals_get_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", ENVIRONMENT["HF_TOKEN"])
    assert printable(f"{ENVIRONMENT['HF_TOKEN']}\x1b[2J\u202e") == f"{HIDDEN}\\x1b[2J\\u202e"
