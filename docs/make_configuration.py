"""Writes configuration.md: every key of `conf` and `sweeps` with its type, default and explanation.

    python docs/make_configuration.py [target.md]

Defaults and explanations are those of the YAML files, types those of the classes that read them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NamedTuple, get_type_hints

import yaml

from sweep.composition import purpose
from sweep.config import Budget, Config, Evaluation
from sweep.data.audit.audit import Audit, Limits
from sweep.data.folds import Validation
from sweep.data.source import DataSource, SplitShares
from sweep.evaluation.guards import Guards
from sweep.grammar import spell_out
from sweep.paths import packaged_root
from sweep.schema import in_words
from sweep.search.caps import SmallData
from sweep.search.space import Space
from sweep.stages.finalists import Confirm
from sweep.targets import hints_of
from sweep.tracking.mlflow import Tracking
from sweep.types import Recipe

HERE = Path(__file__).parent
ROOT = packaged_root()
# Found recipes are results, not settings.
LEFT_OUT = ("best",)
GROUPS = {
    "model": "The base model.",
    "data": "The rows and their splits.",
    "validation": "Which rows trials are judged by.",
    "recipe": "Every hyperparameter: the values of trial 0, and of whatever is not searched.",
    "space": "What is searched: any fields of the recipe.",
    "engine": "How a trial is trained.",
    "backend": "Where trials run.",
    "sampler": "Who proposes the next trial.",
    "scheduler": "Which trials go on, and when a trial is judged.",
    "tracking": "Where the runs are shown.",
    "audit": "What the rows must hold to before anything is trained on them.",
    "metric": "What is measured beside the loss; several may be chosen, `metric=[perplexity,hard_rows]`.",
    "guards": "What a trial must hold to, so that none wins by learning its rows by heart.",
    "scorer": "What is measured of replies; several may be chosen, `scorer=[facts,chrf]`.",
    "objective": "What finalists and simpler ways are judged by.",
    "baseline": "What answers without training; several may be chosen, `baseline=[canned,zero_shot]`.",
    "experiment": "Settings that belong together, added with a plus: `+experiment=smoke`.",
}
NODES: Mapping[str, type] = {
    "audit": Audit,
    "audit.limits": Limits,
    "budget": Budget,
    "confirm": Confirm,
    "small_data": SmallData,
    "data": DataSource,
    "data.split": SplitShares,
    "validation": Validation,
    "evaluation": Evaluation,
    "guards": Guards,
    "recipe": Recipe,
    "tracking": Tracking,
}
INTRODUCTION = """\
# Configuration

Every key, what it takes, what it is unless you change it, and what it does. `make docs` writes this page from
the files of `conf` and `sweeps` and the classes that read them.

| written on the command line | means |
|---|---|
| `scheduler=full` | take `scheduler/full.yaml` for this group |
| `metric=[perplexity,hard_rows]` | take several files, where a group allows it |
| `budget.trials=64` | set a key |
| `+sampler.constant_liar=true` | add a key that the class takes and the file does not hold |
| `~space.weight_decay` | remove a key |
| `+experiment=smoke`, `+best=smoke` | add a file that sets keys of several groups |

The folders `conf` and `sweeps` of the working directory are searched first, then the shipped ones.
`python -m sweep +experiment=smoke --cfg job` prints the composed configuration. A key that is misspelt,
missing or of the wrong type is refused before anything is loaded.
"""
FORMS = """\
Each key is a field of the recipe, each value one of these forms, in the grammar of Hydra's overrides or
spelled out:

| written | spelled out | searches |
|---|---|---|
| `interval(0.0, 0.3)` | `{low: 0.0, high: 0.3}` | evenly between the bounds, both included |
| `tag(log, interval(1e-4, 1e-2))` | `{low: 1e-4, high: 1e-2, log: true}` | evenly in the logarithm |
| `int(interval(2.0, 64.0))` | `{low: 2, high: 64, int: true}` | whole numbers; whole fields need no `int` |
| `range(2, 10, step=2)` | `{low: 2, high: 8, step: 2}` | steps from the start to before the stop |
| `choice(4, 8, 16)` | `{choices: [4, 8, 16]}` | these values; numbers are ordered, others are not |

Spelled out, a form may say when it counts: `{low: 0.0, high: 0.2, when: "lora_rank >= 16"}`. A condition
compares fields with constants (`==`, `!=`, `<`, `<=`, `>`, `>=`) and joins comparisons by `and`, `or`, `not`;
where it does not hold, the recipe's own value is taken. The recipe's values are trial 0, so they must lie
inside the space.
"""


class Key(NamedTuple):
    """One key of a YAML file. text: its value as written, None for a mapping with keys of its own."""

    path: str
    text: str | None
    comment: str


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_overview(), *_primary(), *(line for g in GROUPS for line in _group(g))])


def read(file: Path, prefix: str = "") -> list[Key]:
    """The keys of a YAML file in their order, each with the comment right above it."""
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text)
    return list(_keys(node, prefix, text)) if isinstance(node, yaml.MappingNode) else []


def _keys(node: yaml.MappingNode, prefix: str, text: str) -> Iterator[Key]:
    for key, value in node.value:
        if "." not in prefix and key.value == "defaults":
            continue
        path = f"{prefix}.{key.value}".lstrip(".")
        comment = _comment_above(text.splitlines()[: key.start_mark.line])
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield Key(path, None, comment)
            yield from _keys(value, path, text)
        else:
            yield Key(path, text[value.start_mark.index : value.end_mark.index], comment)


def _comment_above(lines: Sequence[str]) -> str:
    block: list[str] = []
    for line in reversed(lines):
        if not line.strip().startswith("#"):
            break
        block.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(line for line in block if not line.startswith("@package"))


def _overview() -> list[str]:
    rows = [
        (
            f"[{group}](#{group})",
            _listed(_defaults().get(group, ())),
            _listed(map(_stem, _files(group))),
            text,
        )
        for group, text in GROUPS.items()
    ]
    return ["## Groups", "", *_table(("group", "default", "choices", "decides"), rows), ""]


def _primary() -> list[str]:
    file = ROOT / "conf/config.yaml"
    explained = (
        "The keys that belong to no group, `conf/config.yaml`. `???` must be given; an experiment does."
    )
    return ["## Keys of no group", "", explained, "", *_key_table(read(file), {}), ""]


def _group(group: str) -> list[str]:
    lines = [f"## {group}", "", GROUPS[group], ""]
    if group == "space":
        lines += [FORMS]
    for file in _files(group):
        default = " (default)" if file.stem in _defaults().get(group, ()) else ""
        choice = f"+{group}={file.stem}" if group == "experiment" else f"{group}={file.stem}"
        lines += [f"### `{choice}`{default}", "", purpose(file), ""]
        if included := _included(file):
            lines += [f"It has all keys of {_listed(f'{group}={name}' for name in included)}, and these:", ""]
        lines += {"space": _space_table, "experiment": _experiment_table}.get(group, _group_table)(file)
        lines += [""]
    return lines


def _group_table(file: Path) -> list[str]:
    group = file.parent.name
    return _key_table(read(file, group), _target_types(yaml.safe_load(file.read_text("utf-8")), group))


def _key_table(keys: Sequence[Key], types: Mapping[str, str]) -> list[str]:
    rows = [
        (_code(key.path), {**_plain_types(), **types}[key.path], _code(key.text), _explained(key))
        for key in keys
        if key.text is not None
    ]
    return _table(("key", "type", "default", "explanation"), rows)


def _explained(key: Key) -> str:
    section, _, name = key.path.rpartition(".")
    if name == "_target_":
        return "The class that the other keys are arguments of."
    if section != "recipe":
        return key.comment
    searched = "Can be searched" if name != "epochs" else "Can be searched with `scheduler=full`"
    ordered = in_words(get_type_hints(Recipe)[name]) in ("a number", "a whole number")
    return f"{key.comment} {searched}{'' if ordered else ', by choices'}."


def _experiment_table(file: Path) -> list[str]:
    told = {
        key.path: key.comment for f in _all_files() if f.parent != file.parent for key in read(f, _prefix(f))
    }
    rows = [
        (_code(f"{group}={name}"), f"Takes this file of the group {group}.")
        for group, name in _overridden(file).items()
    ]
    rows += [
        (_code(f"{key.path}={key.text}"), key.comment or told.get(key.path, ""))
        for key in read(file)
        if key.text is not None
    ]
    return _table(("sets", "explanation"), rows)


def _space_table(file: Path) -> list[str]:
    keys = read(file, "space")
    node = yaml.safe_load(file.read_text("utf-8"))
    searched = {name: _searched(name, form) for name, form in node.items()}
    rows = [
        (_code(key.path), _code(key.text), searched[key.path.removeprefix("space.")], key.comment)
        for key in keys
        if key.text is not None
    ]
    return _table(("key", "form", "searches", "explanation"), rows)


def _searched(name: str, form: object) -> str:
    (parameter,) = Space.from_mapping({name: spell_out(name, form)}).parameters
    log = "evenly in the logarithm, " if parameter.to_mapping().get("log") else ""
    return f"{log}{parameter}"


def _plain_types() -> dict[str, str]:
    """The type of each key that no `_target_` decides, in words."""
    known = {
        cls.__name__: cls
        for cls in (Audit, Confirm, DataSource, Guards, SmallData, Space, Tracking, Validation)
    }
    top = get_type_hints(Config, localns=known)
    plain = (int, float, str)
    found = {name: in_words(hint) for name, hint in top.items() if hint in plain or name == "best"}
    found |= {"name": in_words(str), "recipe_from": in_words(top["recipe_from"])}
    found |= {"trusted_targets": in_words(top["trusted_targets"]), "metric": in_words(top["metrics"])}
    found |= {"scorer": in_words(top["scorers"]), "baseline": in_words(top["baselines"])}
    for prefix, cls in NODES.items():
        hints = get_type_hints(cls)
        found |= {f"{prefix}.{field.name}": in_words(hints[field.name]) for field in fields(cls)}
    return found


def _target_types(node: object, path: str) -> dict[str, str]:
    """The same for the keys of the targets in a node, nested ones included."""
    if not isinstance(node, dict):
        return {}
    found: dict[str, str] = {}
    if "_target_" in node:
        hints = hints_of(_class(node["_target_"]))
        found = _typed(node, hints, path)
        found[f"{path}._target_"] = "a class"
    for name, inner in node.items():
        found |= _target_types(inner, f"{path}.{name}")
    return found


def _class(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _typed(node: Mapping[str, object], hints: Mapping[str, object], path: str) -> dict[str, str]:
    """The same for the keys of a mapping with these types, dataclasses among them opened."""
    found = {f"{path}.{name}": in_words(hints[name]) for name in node if name in hints}
    for name, inner in node.items():
        hint = hints.get(name)
        if isinstance(hint, type) and is_dataclass(hint) and isinstance(inner, dict):
            found |= _typed(inner, get_type_hints(hint), f"{path}.{name}")
    return found


def _defaults() -> dict[str, list[str]]:
    """The files of each group that are chosen by default."""
    node = yaml.safe_load((ROOT / "conf/config.yaml").read_text("utf-8"))
    named = [pair for entry in node["defaults"] if isinstance(entry, dict) for pair in entry.items()]
    return {group: names if isinstance(names, list) else [names] for group, names in named}


def _overridden(file: Path) -> dict[str, str]:
    node = yaml.safe_load(file.read_text("utf-8"))
    entries = (entry for entry in node.get("defaults", ()) if isinstance(entry, dict))
    return {key.removeprefix("override /"): name for entry in entries for key, name in entry.items()}


def _included(file: Path) -> list[str]:
    """The files of the same group whose keys it takes over."""
    node = yaml.safe_load(file.read_text("utf-8"))
    return [entry for entry in node.get("defaults", ()) if isinstance(entry, str) and entry != "_self_"]


def _files(group: str) -> list[Path]:
    """The group's files, those that are chosen by default first."""
    files = [file for file in _all_files() if file.parent.name == group]
    return sorted(files, key=lambda file: (file.stem not in _defaults().get(group, ()), file.stem))


def _all_files() -> list[Path]:
    files = (file for root in ("conf", "sweeps") for file in sorted((ROOT / root).rglob("*.yaml")))
    return [file for file in files if file.parent.name not in LEFT_OUT]


def _prefix(file: Path) -> str:
    return "" if file.parent.name == "conf" else file.parent.name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names)) or "none"


def _stem(file: Path) -> str:
    return file.stem


def _code(text: str | None) -> str:
    return f"`{text}`" if "\n" not in str(text) else "several lines: see the file"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [_row(head), "|" + "---|" * len(head), *map(_row, cells)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "configuration.md"
    target.write_text(page(), encoding="utf-8")
