"""Files and overrides into one plain mapping. What Hydra composes is in here, and no part of it leaves.

Composed by `compose()`, not by `@hydra.main`, whose callbacks and logging let a file run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sweep.environment import without_environment
from sweep.errors import ConfigError
from sweep.explanation import explained, first_line, not_given
from sweep.overrides import ADDED, Groups, parse
from sweep.paths import packaged_root
from sweep.redaction import hidden, remember
from sweep.untrusted import check_file, leaves, names_above

_PRIMARY = "sweep_primary"
_FOLDERS = ("conf", "sweeps")
# Parts of Hydra's own node that differ from run to run.
_VARYING = ("overrides", "runtime", "searchpath")
_VARYING_IN_JOB = ("name", "override_dirname", "config_name", "id", "num")
_HYDRA_REFERENCE = re.compile(r"\$\{\s*hydra\s*[:.]")


class Composition(NamedTuple):
    """A composed configuration.

    plain: resolved. redacted, overrides: without secrets, for saving. by_hand: keys that overrides
    set one by one, dotted, as `recipe.learning_rate`. strays: keys of a group whose file an override
    chose, which stand in no such file: an experiment holds them for the one that it goes with.
    """

    plain: dict[str, Any]
    redacted: dict[str, Any]
    overrides: tuple[str, ...]
    by_hand: frozenset[str]
    strays: frozenset[str]


def compose_plain(overrides: Sequence[str], working_directory: Path | None = None) -> Composition:
    """The configuration that the overrides ask for, from the working directory's files and the packaged.

    Raises ConfigError for what can't be composed, and for whatever configures or reads Hydra itself.
    """
    try:
        return _composition(overrides, working_directory)
    except RecursionError as error:
        raise ConfigError(
            "The configuration can't be composed: a value is nested hundreds of levels deep, or refers to "
            "itself; no configuration does. Do not use the file that holds it."
        ) from error


def _composition(overrides: Sequence[str], working_directory: Path | None) -> Composition:
    roots = search_path(working_directory)
    for file in _foreign(roots):
        check_file(file)
    known = groups(working_directory)
    parsed = parse(overrides, known)
    config = _composed(roots, parsed)
    raw = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    if reference := next((path for path, text in _texts(raw) if _HYDRA_REFERENCE.search(text)), None):
        raise ConfigError(
            f"{reference}: ${{hydra:...}} can't be used here, for Hydra runs nothing. Write the value itself."
        )
    if cut := next((path for path, text in _texts(raw) if "\0" in text), None):
        raise ConfigError(f"{cut}: holds the character \\0, where systems end a text. Remove it.")
    missing = [path for path, text in _texts(raw) if text == "???"]
    if missing:
        raise ConfigError(not_given(min(missing, key=lambda path: path != "name"), parsed, known))
    by_hand = frozenset(_by_hand(parsed))
    plain = _resolved(config)
    remember(plain)
    return Composition(
        plain=plain,
        redacted=cast("dict[str, Any]", hidden(without_environment(raw))),
        overrides=tuple(_without_secrets(*pair) for pair in zip(overrides, parsed, strict=True)),
        by_hand=by_hand,
        strays=frozenset(_strays(raw, parsed, known)) - by_hand,
    )


def search_path(working_directory: Path | None = None) -> tuple[Path, ...]:
    """Folders that hold groups, first match first: `conf`, `sweeps` of the user, then the packaged ones."""
    places = [working_directory or Path.cwd(), packaged_root()]
    folders = [(place / name).resolve() for place in places for name in _FOLDERS]
    return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def groups(working_directory: Path | None = None) -> dict[str, dict[str, Path]]:
    """The files of each config group by name, those that win where two have one name."""
    found: dict[str, dict[str, Path]] = {name: {} for name in ADDED}
    for root in search_path(working_directory):
        for file in sorted(root.glob("*/**/*.yaml")):
            group, *names = file.relative_to(root).with_suffix("").parts
            found.setdefault(group, {}).setdefault("/".join(names), file)
    return found


def purpose(file: Path) -> str:
    """What a file says it is for: its first comment, its package header aside."""
    comments = (
        line.removeprefix("#").strip()
        for line in file.read_text("utf-8", errors="replace").splitlines()
        if line[:1] == "#"
    )
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def _composed(roots: Sequence[Path], parsed: Sequence[Override]) -> DictConfig:
    """The composed configuration without Hydra's node, which must be as Hydra ships it."""
    # The primary file by itself, from the store: its folder must not come before the user's.
    primary = OmegaConf.load(packaged_root() / "conf" / "config.yaml")
    ConfigStore.instance().store(name=_PRIMARY, node=primary)
    first, *others = roots
    files = ",".join(QuotedString(f"file://{root}", Quote.single).with_quotes() for root in others)
    # What is added last wins, and `best` must win over the experiment.
    ordered = sorted(parsed, key=lambda override: override.key_or_group == "best")
    lines = [f"hydra.searchpath=[{files}]", *(cast("str", override.input_line) for override in ordered)]
    try:
        # Not `initialize`, which looks for its caller's file through all modules.
        with initialize_config_dir(str(first), job_name="sweep", version_base="1.3"):
            own = _shipped_hydra_node()
            config = hydra_compose(_PRIMARY, overrides=lines, return_hydra_config=True)
            # As long again, so only where there may be something: another project's files may lie there.
            loaded = _loaded(lines) if any(map(names_above, _foreign(roots))) else []
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        told = explained(
            error, roots, parsed, lambda chosen: OmegaConf.to_container(_composed(roots, chosen))
        )
        raise ConfigError(told) from error
    if outside := next((name for name in loaded if leaves(name)), None):
        raise ConfigError(
            f"{outside}: a defaults list names it, but it leaves the folders of configurations; the files of "
            "conf/ and sweeps/ alone may be named. Copy it there, or drop the line."
        )
    node = _hydra_node(config)
    if foreign := [key for key in node if node[key] != own.get(key)]:
        raise ConfigError(
            f"hydra.{foreign[0]}: a configuration file must not configure Hydra, which could run code by "
            "it. Remove the `hydra` keys from the experiment and the files that it names."
        )
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _foreign(roots: Sequence[Path]) -> Iterator[Path]:
    """The files on the search path that the product does not ship."""
    own = [packaged_root() / name for name in _FOLDERS]
    return (file for root in roots if root not in own for file in sorted(root.rglob("*.yaml")))


def _loaded(lines: Sequence[str]) -> list[str]:
    """Every file that goes into the composition, as the defaults lists name it."""
    loader = GlobalHydra.instance().config_loader()
    found = loader.compute_defaults_list(_PRIMARY, list(lines), RunMode.RUN)
    return [str(each.config_path) for each in found.defaults]


@cache
def _shipped_hydra_node() -> dict[str, Any]:
    return _hydra_node(hydra_compose(overrides=[], return_hydra_config=True))


def _hydra_node(config: DictConfig) -> dict[str, Any]:
    node = cast("dict[str, Any]", OmegaConf.to_container(config.hydra, resolve=False))
    job = {key: value for key, value in node.pop("job").items() if key not in _VARYING_IN_JOB}
    return {key: value for key, value in node.items() if key not in _VARYING} | {"job": job}


def _resolved(config: Any) -> dict[str, Any]:
    try:
        # What stands at the top first, or a group that refers to it would be blamed.
        for key in config:
            OmegaConf.select(config, str(key))
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        place = error.full_key or "A value"
        raise ConfigError(
            f"{place}: what it refers to can't be had: {first_line(error)}. Set the environment variable or "
            "correct the name between ${ and }."
        ) from error


def _without_secrets(line: str, override: Override) -> str:
    value = override.value()
    safe = hidden(value, override.key_or_group.rpartition(".")[2])
    return line if safe == value else f"{line.partition('=')[0]}={safe}"


def _by_hand(parsed: Sequence[Override]) -> Iterator[str]:
    for override in parsed:
        if override.is_delete():
            continue
        value = override.value()
        if isinstance(value, dict):
            yield from (f"{override.key_or_group}.{key}" for key in value)
        else:
            yield override.key_or_group


def _strays(raw: dict[str, Any], parsed: Sequence[Override], known: Groups) -> Iterator[str]:
    for override in parsed:
        group = override.key_or_group
        if override.is_delete() or group in ADDED or not isinstance(raw.get(group), dict):
            continue
        file = known.get(group, {}).get(str(override.value()))
        held = OmegaConf.load(file) if file else None
        if isinstance(held, DictConfig) and "defaults" not in held:
            # A key that stands in no file of the group is a mistake and goes with none.
            elsewhere = {key for other in known[group].values() for key in OmegaConf.load(other)}
            yield from (f"{group}.{key}" for key in raw[group] if key not in held and key in elsewhere)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, object]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None or not node:
        yield path, node
        return
    for key, value in items:
        place = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}" if path else str(key)
        yield from _leaves(value, place)


def _texts(node: Any) -> Iterator[tuple[str, str]]:
    return ((path, value) for path, value in _leaves(node) if isinstance(value, str))
