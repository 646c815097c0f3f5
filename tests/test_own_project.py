"""A project of one's own: an empty folder, one experiment, one table; from the wheel and the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sweep.paths import packaged_root

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
MINE = """\
# @package _global_
# A table of our own, on a tiny random model.

defaults:
  - override /model: tiny_llama
  - override /data: own
  - override /space: lora_small
  - override /scheduler: full
  - override /objective: loss

name: mine
data: {path: rows.csv, max_tokens: 48}
recipe: {epochs: 0.2, batch_size: 4}
budget: {trials: 3}
evaluation: {rows: 4}
audit: {allow: [rows, truncated]}
"""
# Letters only: prompts that differ in numbers alone count as look-alikes.
LETTERS = str.maketrans("0123456789", "ghijklmnop")
WORDS = [hashlib.sha256(bytes([i])).hexdigest()[:24].translate(LETTERS) for i in range(80)]
ROWS = "prompt,response\n" + "".join(f"what is {word}?,it is {word[::-1]}\n" for word in WORDS)


@dataclass(frozen=True)
class Installation:
    """python: the interpreter. shipped: where the product's own files are."""

    python: Path
    shipped: Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the repository in which sweeps ran and modules were compiled."""
    source = tmp_path_factory.mktemp("source")
    for name in ("conf", "data", "src", "sweeps"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for left in ("sweeps/best/found.yaml", "conf/__pycache__/a.pyc", "src/sweep/__pycache__/a.pyc"):
        (source / left).parent.mkdir(exist_ok=True)
        (source / left).touch()
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own, which borrows what it depends on from the tests'."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path named here comes after the environment's own, and .pth files in it, such as that of an
    # editable install, are not read.
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    return Installation(python=python, shipped=packages / "sweep")


@pytest.fixture(scope="module", params=["wheel", "repository"])
def installation(request: pytest.FixtureRequest, installed: Installation) -> Installation:
    if request.param == "wheel":
        return installed
    return Installation(python=Path(sys.executable), shipped=packaged_root())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(installation: Installation, *arguments: str, folder: Path, cache: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installation.python, *arguments],
        cwd=folder,
        env={**kept, "SWEEP_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listing(folder: Path) -> set[Path]:
    return {path for top in ("conf", "data", "sweeps", "_packaged") for path in (folder / top).rglob("*")}


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("sweep/_packaged/") for name in names if name.startswith("sweep/_packaged/")}
    wanted = {f"{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    wanted |= {f"{file.relative_to(ROOT)}" for file in (ROOT / "sweeps/space").rglob("*.yaml")}
    for name in ("general", "support_bot"):
        wanted |= {f"data/{name}/{file}" for file in ("README.md", f"{name}.jsonl")}
    assert shipped == wanted
    assert {name.partition("/")[0] for name in names} == {"sweep", "sweep-0.1.0.dist-info"}
    assert {"sweep/starter/mine.yaml", "sweep/starter/gitignore"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "test" in name]
    assert wheel.stat().st_size < 1_000_000


def test_the_wheels_own_copy_is_imported(installed: Installation, tmp_path: Path, cache: Path) -> None:
    said = run(installed, "-c", "import sweep; print(sweep.__file__)", folder=tmp_path, cache=cache)
    assert Path(said.strip()) == installed.shipped / "__init__.py"
    assert (installed.shipped / "_packaged/conf/config.yaml").is_file()


def test_one_experiment_and_one_table_are_a_project(
    installation: Installation, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(MINE)
    (tmp_path / "rows.csv").write_text(ROWS)
    before = listing(installation.shipped)
    said = run(installation, "-m", "sweep", "+experiment=mine", folder=tmp_path, cache=cache)
    assert "next   python -m sweep.train +experiment=mine +best=mine" in said
    best = yaml.safe_load((tmp_path / "sweeps/best/mine.yaml").read_text())
    assert best["best"]["experiment"] == "mine"
    assert {"runs", "mlflow.db", "sweep.db"} <= {path.name for path in tmp_path.iterdir()}
    assert listing(installation.shipped) == before


def test_the_projects_files_win(installation: Installation, tmp_path: Path, cache: Path) -> None:
    def composed() -> dict[str, dict[str, object]]:
        typed = ("-m", "sweep", "+experiment=smoke", "--cfg", "job")
        return yaml.safe_load(run(installation, *typed, folder=tmp_path, cache=cache))

    before = composed()
    assert before["recipe"]["lora_alpha"] == 32
    recipe = (packaged_root() / "conf/recipe/lora.yaml").read_text(encoding="utf-8")
    for name, text in {
        "conf/recipe/lora.yaml": recipe.replace("lora_alpha: 32", "lora_alpha: 24"),
        "sweeps/space/lora_small.yaml": "lora_rank: choice(8, 16)\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    after = composed()
    assert after["recipe"] == {**before["recipe"], "lora_alpha": 24}
    assert after["space"] == {"lora_rank": "choice(8, 16)"}


def test_the_starter_runs_as_it_is(installed: Installation, tmp_path: Path, cache: Path) -> None:
    said = run(installed, "-m", "sweep.init", "tuning", folder=tmp_path, cache=cache)
    assert "next   cd tuning" in said
    typed = ("-m", "sweep", "+experiment=mine", "model=tiny_llama", "data.max_tokens=1024", "budget.trials=3")
    run(installed, *typed, folder=tmp_path / "tuning", cache=cache)
    assert (tmp_path / "tuning/sweeps/best/mine.yaml").is_file()
