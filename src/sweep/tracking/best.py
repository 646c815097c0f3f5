"""The best configuration as a file that Hydra reads."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from sweep.errors import ConfigError
from sweep.paths import write_whole
from sweep.tracking.store import listed
from sweep.types import BestConfig, Decision, Recipe, Score, Verdict
from sweep.untrusted import check_file

_SCORES = ("validation", "confirm", "default_confirm", "test", "default_test")
# What a file of an earlier version lacks.
_LACKING: Mapping[str, object] = {
    "default_confirm": None,
    "test": None,
    "default_test": None,
    "baselines": {},
    "decision": "no_evidence",
    "folds": None,
    "unit": 1,
}
# Hydra reads 1e5 and 12e4567 as numbers where YAML 1.1 reads text, so text that starts like one is quoted.
_NUMBER_LIKE = re.compile(r"[-+.\d]")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where the best configuration went. notice: why beside the file asked for and what to do, if so."""

    path: Path
    notice: str | None


def write_best(best: BestConfig, path: Path) -> Written:
    """A config for `+best=<name>`, written whole or not at all.

    A file of the same study is replaced. A file of another study is left alone: the new one goes
    beside it as `<name>.<fingerprint>.yaml`, and the notice says so.
    """
    differences = _differences(best, path) if path.exists() else []
    if not differences:
        write_whole(path, _as_yaml(best, path.stem))
        return Written(path=path, notice=None)
    beside = path.with_name(f"{path.stem}.{best.fingerprint[:8]}{path.suffix}")
    write_whole(beside, _as_yaml(best, beside.stem))
    notice = (
        f"{path} holds the result of another study and was left as it is ({'; '.join(differences)}). "
        f"The new result is in {beside}: use it with +best={beside.stem}, or move {path.name} away and run "
        "again."
    )
    return Written(path=beside, notice=notice)


def save_best(best: BestConfig, path: Path) -> Path:
    """The same file in a folder of the run's own, in place of whatever stood there."""
    write_whole(path, _as_yaml(best, best.experiment))
    return path


def training_command(overrides: Sequence[str], name: str) -> str:
    """What to type to train with the best configuration `name` that a sweep with these overrides found."""
    kept = [override for override in overrides if not override.startswith("+best=")]
    return shlex.join(["python", "-m", "sweep.train", *kept, f"+best={name}"])


def read_best(path: Path) -> BestConfig:
    """What `write_best` wrote. Raises ConfigError naming the file and the key that is wrong."""
    if not path.is_file():
        present = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise ConfigError(f"{path} does not exist; {path.parent} holds {listed(present)}.")
    node = _load(path)
    if not isinstance(node, dict) or not isinstance(node.get("best"), dict):
        raise ConfigError(f"{path} must hold `recipe` and `best`, as written at the end of a sweep.")
    whole = {"stop": node["best"].get("horizon")}
    told = {**_LACKING, **whole, **node["best"], "recipe": node.get("recipe")}
    for name in _SCORES:
        if told.get(name) is not None:
            told[name] = _build(Score, told[name], f"{path}: best.{name}")
    told["baselines"] = {
        name: _build(Score, score, f"{path}: best.baselines.{name}")
        for name, score in (told["baselines"] or {}).items()
    }
    if told["decision"] not in get_args(Decision):
        raise ConfigError(
            f"{path}: best.decision is {told['decision']!r}; must be one of {', '.join(get_args(Decision))}. "
            "Take the file as the sweep wrote it."
        )
    told["verdicts"] = tuple(
        _build(Verdict, verdict, f"{path}: best.verdicts[{index}]")
        for index, verdict in enumerate(told.get("verdicts") or ())
    )
    if isinstance(told.get("overrides"), list):
        told["overrides"] = tuple(map(str, told["overrides"]))
    recipe = told["recipe"]
    if isinstance(recipe, dict) and isinstance(recipe.get("target_modules"), list):
        recipe = {**recipe, "target_modules": tuple(recipe["target_modules"])}
    told["recipe"] = _build(Recipe, recipe, f"{path}: recipe")
    best = _build(BestConfig, told, f"{path}: best")
    if not isinstance(best.model, dict):
        raise ConfigError(f"{path}: best.model must be a mapping, got {best.model!r}.")
    return best


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Only double quotes escape; in single ones PyYAML loses some line breaks.
    style = "'" if _NUMBER_LIKE.match(text) else None
    style = style if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text.replace("${", "\\${"), style=style)


_Dumper.add_representer(str, _text)
# NumPy's float64 is a float, but not by its exact type.
_Dumper.add_multi_representer(float, lambda dumper, value: dumper.represent_float(float(value)))


def _as_yaml(best: BestConfig, name: str) -> str:
    told = asdict(best)
    for score in [score for score in _SCORES if told[score] is None]:
        del told[score]
    # The model stays inside: as a key of its own, Hydra would merge it into another model's.
    nodes = {"recipe": told.pop("recipe"), "best": told}
    body = yaml.dump(nodes, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"# @package _global_\n{_provenance(best, name)}\n{body}"


def _provenance(best: BestConfig, name: str) -> str:
    failed = [verdict for verdict in best.verdicts if not verdict.passed]
    examples = f"{best.horizon}" if best.stop == best.horizon else f"{best.stop} of {best.horizon}"
    lines = [
        f"Best recipe of study {best.study}: trial {best.trial}, seed {best.seed}, {examples} examples"
        f"{f'; found by {best.folds} folds, trained on all of them' if best.folds else ''}.",
        "",
        f"decision    {best.decision}",
        *_compared("test", best.test, best.default_test),
        *_compared("confirm", best.confirm, best.default_confirm),
        *(f"            {name:<13} {_shown(score)}" for name, score in best.baselines.items()),
        f"validation  this recipe   {_shown(best.validation)}",
        f"checks      {len(best.verdicts) - len(failed)} of {len(best.verdicts)} passed",
        *(f"            {verdict.check}: {verdict.message}" for verdict in failed),
        "",
        f"Train with it:  {training_command(best.overrides, name)}",
    ]
    return "".join(f"# {_on_one_line(line)}".rstrip() + "\n" for line in lines)


def _compared(split: str, ours: Score | None, theirs: Score | None) -> list[str]:
    lines = [f"{split:<11} this recipe   {_shown(ours)}"] if ours else []
    return [*lines, f"            the defaults  {_shown(theirs)}"] if theirs else lines


def _on_one_line(text: str) -> str:
    """A comment: a line break in a message must not end it, and YAML refuses control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _shown(score: Score) -> str:
    return f"{score.value:.4f} ± {score.standard_error:.4f} (standard error, {score.examples} examples)"


def _differences(best: BestConfig, path: Path) -> list[str]:
    try:
        node = _load(path)
    except ConfigError:
        node = None
    there = node.get("best") if isinstance(node, dict) else None
    if not isinstance(there, dict):
        return ["it is no result of a sweep that can be read"]
    told = asdict(best)
    if all(there.get(name) == told[name] for name in ("study", "fingerprint")):
        return []
    names = ("study", "experiment", "fingerprint", "data_fingerprint", "seed", "horizon")
    return [
        f"{name}: {there.get(name)} there, {told[name]} now"
        for name in names
        if there.get(name) != told[name]
    ]


def _load(path: Path) -> Any:
    try:
        check_file(path)
        return _plain(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {first}") from error


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {_plain(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node.replace("\\${", "${") if isinstance(node, str) else node


def _build(kind: type[_T], node: object, where: str) -> _T:
    """The dataclass from a mapping that names each of its fields, and nothing else."""
    if not isinstance(node, dict):
        raise ConfigError(f"{where} must be a mapping, got {node!r}.")
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if missing := sorted(names - node.keys()):
        raise ConfigError(
            f"{where} lacks {', '.join(missing)}. Add it, or take the file as the sweep wrote it."
        )
    if unknown := sorted(node.keys() - names, key=str):
        raise ConfigError(f"{where} has unknown keys {', '.join(map(str, unknown))}; remove them.")
    hints = get_type_hints(kind)
    return kind(**{name: _number(hints[name], node[name], f"{where}.{name}") for name in node})


def _number(hint: object, value: Any, where: str) -> Any:
    """The value; as a float where one is due. YAML 1.1 reads a hand-written 1e-4 as text."""
    if hint is float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{where} must be a number, got {value!r}.") from None
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where} must be a whole number, got {value!r}.")
    if hint is bool and not isinstance(value, bool):
        raise ConfigError(f"{where} must be true or false, got {value!r}.")
    return value
