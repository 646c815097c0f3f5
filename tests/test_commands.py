"""The door: help at once, errors as text with exit code 2, signals as exit codes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.commands import Interrupted, interruptible, run_command
from sweep.config import Config
from sweep.driver import living_driver, only_driver
from sweep.errors import DataError, StudyError


def never(config: Config) -> int:
    raise AssertionError("must not run")


def test_help_answers_without_loading_what_trains(tmp_path: Path) -> None:
    code = (
        "import sys; from sweep.commands import run_command; "
        "status = run_command('sweep', ['--help'], lambda config: 1); "
        "heavy = {'torch', 'transformers', 'mlflow', 'optuna', 'pandas', 'sklearn'} & set(sys.modules); "
        "sys.exit(status or len(heavy))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for experiment in ("smoke", "support_bot", "support_bot_full", "support_bot_gpu"):
        assert experiment in result.stdout


def test_no_arguments_show_the_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sweep", [], never) == 2
    assert "+experiment=NAME" in capsys.readouterr().out


def test_the_composed_configuration_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sweep", ["+experiment=smoke", "--cfg", "job", "seed=7"], never) == 0
    assert "seed: 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+experiment=suport_bot"], ["suport_bot", "support_bot"]),
        (["+experiment=smoke", "recipe.lerning_rate=1"], ["recipe.lerning_rate", "recipe.learning_rate"]),
        (["+experiment=smoke", "recipe.learning_rate=1e-3"], ["~space.learning_rate"]),
        (["+experiment=smoke", "budget.trials=many"], ["budget.trials", "whole number", "many"]),
        (["+experiment=smoke", "-m"], ["-m"]),
    ],
)
def test_a_mistake_is_named_with_its_cure(
    overrides: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("sweep", overrides, never) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for text in said:
        assert text in error


def test_an_error_of_the_command_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: Config) -> int:
        raise DataError("data.path=[x]: nothing there")

    assert run_command("sweep", ["+experiment=smoke"], fail) == 2
    assert "data.path=[x]: nothing there" in capsys.readouterr().err


@pytest.mark.parametrize(("output", "reason"), [("taken", "File exists"), ("taken/below", "Not a directory")])
def test_a_folder_that_can_not_be_written_is_named_with_its_cure(
    output: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()

    def command(config: Config) -> int:
        with only_driver(Path(config.output)):
            return 0

    assert run_command("sweep", ["+experiment=smoke", f"output={tmp_path / output}"], command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / output}: {reason}. Make it writable, free space, or change output")
    assert said.count("\n") == 1


def test_a_folder_is_in_use_only_while_its_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only_driver(tmp_path):
        assert str(living_driver(tmp_path)).startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(StudyError, match=f"is in use by process {os.getpid()} on "),
            only_driver(tmp_path),
        ):
            raise AssertionError("goes no further")
    assert living_driver(tmp_path) is None

    def unsupported(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(OSError, match="No locks available"), only_driver(tmp_path):
        raise AssertionError("goes no further")
    with pytest.raises(OSError, match="No locks available"):
        living_driver(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_running_step_end_and_says_how_to_go_on(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def command(config: Config) -> int:
        with interruptible(lambda: done.append("told")):
            os.kill(os.getpid(), number)
            done.append("step")
        raise AssertionError("goes no further")

    assert run_command("sweep", ["+experiment=smoke"], command) == code
    assert done == ["told", "step"]
    assert "python -m sweep +experiment=smoke" in capsys.readouterr().err


def test_ctrl_c_while_modules_load_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def command(config: Config) -> int:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("goes no further")

    assert run_command("sweep", ["+experiment=smoke"], command) == 130
    assert "Stopped. What is done is kept; go on with:\n  python -m sweep +experiment=smoke" in (
        capsys.readouterr().err
    )


def test_between_searches_a_signal_stops_at_once() -> None:
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
