"""A `_target_` names a class of the product or of Optuna's samplers and pruners, however it is spelled."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from sweep.config import compose
from sweep.errors import ConfigError
from sweep.targets import ALLOWED, read_target
from sweep.types import Backend, Engine

HOSTILE = [
    "os.system",
    "builtins.eval",
    "pathlib.Path.write_text",
    "torch.load",
    "subprocess.Popen",
    # Modules, functions and classes that allowed modules import for themselves.
    "optuna.samplers._gp.sampler.torch.load",
    "optuna.samplers._gp.sampler.torch",
    "optuna.samplers._cmaes.pickle.loads",
    "optuna.samplers._tpe.sampler.np.load",
    "sweep.targets.importlib.import_module",
    "sweep.targets.importlib",
    "sweep.backends.seat.subprocess.Popen",
    "sweep.backends.seat.Connection",
    "sweep.engines.model.Path",
    "sweep.config.compose",
    "sweep.commands.run_command",
    # Attributes of a class, and of what any class has.
    "optuna.samplers.TPESampler.__init__.__globals__",
    "optuna.samplers.TPESampler.hyperopt_parameters",
    "sweep.engines.synthetic.Synthetic.__class__",
    "sweep.__main__.sweep",
    # Names that are almost allowed, or none at all.
    "sweepx.Evil",
    "sweep_plugins.Evil",
    "optuna.samplersx.Evil",
    "optuna.storages.RDBStorage",
    ".sweep.engines.synthetic.Synthetic",
    "sweep..engines",
    "sweep.",
    "sweep",
    "",
    " sweep.engines.synthetic.Synthetic",
    "sweep/engines/synthetic",
    "sweep.engines.synthetic:Synthetic",
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("kind", [Engine, BaseSampler, None])
def test_nothing_else_can_be_named(target: str, kind: type | None) -> None:
    with pytest.raises(ConfigError, match=r"^it\._target_: "):
        read_target({"_target_": target}, "it", kind=kind)


@pytest.mark.parametrize("target", [5, None, True, ["os.system"], {"_target_": "os.system"}])
def test_what_is_no_name_is_none(target: object) -> None:
    with pytest.raises(ConfigError, match=r"^it\._target_: "):
        read_target({"_target_": target}, "it")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("sweep.tracking.journal.Journal", Engine),
        ("sweep.pipeline.Pipeline", Engine),
        ("optuna.samplers.TPESampler", BasePruner),
        ("sweep.errors.ConfigError", BaseSampler),
        ("sweep.evaluation.scorers.Chrf", Backend),
    ],
)
def test_a_class_stands_where_its_kind_is_due(target: str, kind: type) -> None:
    with pytest.raises(ConfigError, match=r"^it\._target_: \w+ is no "):
        read_target({"_target_": target}, "it", kind=kind)


@pytest.mark.parametrize(
    ("outer", "argument", "inner"),
    [
        ("NSGAIISampler", "crossover", "optuna.samplers.RandomSampler"),
        ("GPSampler", "independent_sampler", "sweep.evaluation.scorers.Chrf"),
        ("PartialFixedSampler", "base_sampler", "sweep.tracking.journal.Journal"),
        ("GPSampler", "independent_sampler", "torch.load"),
    ],
)
def test_what_is_nested_is_held_to_the_same(outer: str, argument: str, inner: str) -> None:
    node = {"_target_": f"optuna.samplers.{outer}", argument: {"_target_": inner}}
    with pytest.raises(ConfigError, match=rf"^it\.{argument}\._target_: "):
        read_target(node, "it", kind=BaseSampler)


@pytest.mark.parametrize(
    ("outer", "argument"),
    [("PartialFixedSampler", "base_sampler"), ("GPSampler", "independent_sampler"), ("CmaEsSampler", None)],
)
def test_a_sampler_that_unpickles_the_storage_is_refused_at_any_depth(
    outer: str, argument: str | None, tmp_path: Path
) -> None:
    node = f"_target_: optuna.samplers.{outer}\n"
    if argument is not None:
        node += f"{argument}: {{_target_: optuna.samplers.CmaEsSampler}}\n"
    if outer == "PartialFixedSampler":
        node += "fixed_params: {}\n"
    (tmp_path / "conf/sampler").mkdir(parents=True)
    (tmp_path / "conf/sampler/theirs.yaml").write_text(node)
    place = r"\." + argument if argument else ""
    with pytest.raises(ConfigError, match=rf"^sampler{place}: CmaEsSampler .* unpickles"):
        compose(
            ["+experiment=smoke", "engine=synthetic", "scheduler=full", "sampler=theirs"],
            working_directory=tmp_path,
        )


@pytest.mark.parametrize("name", ["sweep", "optuna"])
def test_a_folder_of_an_allowed_name_adds_no_modules_to_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's packages hold what lies in their own folder; one in the working directory extends none."""
    below = tmp_path / name / ("samplers" if name == "optuna" else "engines")
    below.mkdir(parents=True)
    (below / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    with pytest.raises(ConfigError, match="can't be imported"):
        read_target({"_target_": f"{below.relative_to(tmp_path)}.evil.Evil".replace("/", ".")}, "it")
    assert not (tmp_path / "ran").exists()


def test_allowed_classes_are_the_products_and_optunas() -> None:
    """The prefixes in the error are those that hold."""
    for target in ("optuna.samplers.TPESampler", "optuna.pruners.MedianPruner"):
        cls = read_target({"_target_": target}, "it").cls
        assert any(f"{cls.__module__}.".startswith(f"{prefix}.") for prefix in ALLOWED)
        assert inspect.isclass(cls)
