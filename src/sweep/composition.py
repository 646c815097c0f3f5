"""Files and overrides into one plain mapping. All of Hydra is in here, and no part of it leaves.

Composed by `compose()`, not by `@hydra.main`, whose callbacks and logging let a file run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Override,
    Quote,
    QuotedString,
    ValueType,
)
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sweep.errors import ConfigError
from sweep.paths import packaged_root
from sweep.schema import HIDDEN, hidden, nearest

# Groups that the defaults list doesn't name: they are added with a plus.
ADDED = ("experiment", "best")

_PRIMARY = "sweep_primary"
_FOLDERS = ("conf", "sweeps")
# Parts of Hydra's own node that differ from run to run.
_VARYING = ("overrides", "runtime", "searchpath")
_VARYING_IN_JOB = ("name", "override_dirname", "config_name", "id", "num")
_HYDRA_REFERENCE = re.compile(r"\$\{\s*hydra\s*[:.]")


class Composition(NamedTuple):
    """A composed configuration.

    plain: resolved. redacted, overrides: without secrets, for saving. by_hand: keys that overrides
    set one by one, dotted, as `recipe.learning_rate`.
    """

    plain: dict[str, Any]
    redacted: dict[str, Any]
    overrides: tuple[str, ...]
    by_hand: frozenset[str]


def compose_plain(overrides: Sequence[str], working_directory: Path | None = None) -> Composition:
    """The configuration that the overrides ask for, from the working directory's files and the packaged.

    Raises ConfigError for what can't be composed, and for whatever configures or reads Hydra itself.
    """
    roots = search_path(working_directory)
    parsed = _parsed(overrides)
    _check_overrides(parsed, groups(working_directory))
    config = _composed(roots, parsed)
    raw = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    if reference := next((path for path, text in _texts(raw) if _HYDRA_REFERENCE.search(text)), None):
        raise ConfigError(
            f"{reference}: ${{hydra:...}} can't be used here, for Hydra runs nothing. Write the value itself."
        )
    missing = [path for path, text in _texts(raw) if text == "???"]
    if missing:
        raise ConfigError(_missing(min(missing, key=lambda path: path != "name"), groups(working_directory)))
    return Composition(
        plain=_resolved(config),
        redacted=cast("dict[str, Any]", hidden(_resolved(OmegaConf.create(_without_environment(raw))))),
        overrides=tuple(_without_secrets(*pair) for pair in zip(overrides, parsed, strict=True)),
        by_hand=frozenset(_by_hand(parsed)),
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


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides as given, but spaces in the grammar as the texts that files would hold."""
    for override in overrides:
        if override in ("-m", "--multirun"):
            raise ConfigError(
                f"{override}: a multirun starts unrelated runs; here one run is the whole search. Drop it "
                "and name what to search: space=lora, or 'space.lora_rank=choice(8, 16)'."
            )
        if override.startswith("-"):
            raise ConfigError(
                f"{override}: no such option. Overrides are written key=value; --help shows them."
            )
    parser = OverridesParser.create()
    try:
        return [_as_text(parser, override) for override in parser.parse_overrides(list(overrides))]
    except HydraException as error:
        raise ConfigError(
            f"{hidden(getattr(error, 'override', overrides))}: can't be read: {_first_line(error)}. Write "
            "key=value, and quote what holds commas, brackets or an equals sign: \"key='a, b'\"."
        ) from error


def _as_text(parser: OverridesParser, override: Override) -> Override:
    key, line = override.key_or_group, cast("str", override.input_line)
    named = override.value_type != ValueType.SIMPLE_CHOICE_SWEEP
    if not (override.is_sweep_override() and key.startswith("space.") and named):
        return override
    prefix, _, text = line.partition("=")
    return parser.parse_override(f"{prefix}={QuotedString(text, Quote.single).with_quotes()}")


def _check_overrides(parsed: Sequence[Override], known: Mapping[str, Mapping[str, Path]]) -> None:
    for override in parsed:
        key, line = override.key_or_group, str(hidden(override.input_line))
        if override.is_sweep_override():
            raise ConfigError(_several(override, line))
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise ConfigError(f"{line}: Hydra itself is not configurable here. Drop it.")
        if key not in known or override.is_delete():
            continue
        value = override.value()
        if key in ADDED and not override.is_add():
            raise ConfigError(f"{line}: `{key}` is added to the defaults. Write +{key}={value}.")
        if not isinstance(value, str | list | dict):
            raise ConfigError(f"{line}: the name of a file in {key}/ must stand here. Write {key}=NAME.")
        if isinstance(value, str) and value not in known[key]:
            raise ConfigError(f"{key}={value}: no such file. {_offer(key, value, known[key])}")


def _several(override: Override, line: str) -> str:
    key, _, values = line.lstrip("+").partition("=")
    section, _, name = key.partition(".")
    choice = f"choice({values})" if override.value_type == ValueType.SIMPLE_CHOICE_SWEEP else values
    search = (
        f"To search them, write 'space.{name}={choice}'" if section in ("recipe", "space") else "Give one"
    )
    return (
        f"{line}: several values for one key are several runs in Hydra; here one run is the whole search. "
        f"{search}; for a list, write {key}=[a, b]."
    )


def _composed(roots: Sequence[Path], parsed: Sequence[Override]) -> DictConfig:
    """The composed configuration without Hydra's node, which must be as Hydra ships it."""
    # The primary file by itself, from the store: its folder must not come before the user's.
    primary = OmegaConf.load(packaged_root() / "conf" / "config.yaml")
    ConfigStore.instance().store(name=_PRIMARY, node=primary)
    files = ",".join(QuotedString(f"file://{root}", Quote.single).with_quotes() for root in roots)
    # What is added last wins, and `best` must win over the experiment.
    ordered = sorted(parsed, key=lambda override: override.key_or_group == "best")
    lines = [f"hydra.searchpath=[{files}]", *(cast("str", override.input_line) for override in ordered)]
    try:
        with initialize(config_path=None, job_name="sweep", version_base="1.3"):
            own = _shipped_hydra_node()
            config = hydra_compose(_PRIMARY, overrides=lines, return_hydra_config=True)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).strip("/").rpartition("/")
        raise ConfigError(
            f"{group or 'defaults'}={name}: a defaults list names it, but there is no such file. "
            + _offer(group, name, error.options or ())
        ) from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(_explained(error, roots)) from error
    node = _hydra_node(config)
    if foreign := [key for key in node if node[key] != own.get(key)]:
        raise ConfigError(
            f"hydra.{foreign[0]}: a configuration file must not configure Hydra, which could run code by "
            "it. Remove the `hydra` keys from the experiment and the files that it names."
        )
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@cache
def _shipped_hydra_node() -> dict[str, Any]:
    return _hydra_node(hydra_compose(overrides=[], return_hydra_config=True))


def _hydra_node(config: DictConfig) -> dict[str, Any]:
    node = cast("dict[str, Any]", OmegaConf.to_container(config.hydra, resolve=False))
    job = {key: value for key, value in node.pop("job").items() if key not in _VARYING_IN_JOB}
    return {key: value for key, value in node.items() if key not in _VARYING} | {"job": job}


def _explained(error: Exception, roots: Sequence[Path]) -> str:
    """Hydra's error with the nearest key, where a key is the matter."""
    text = str(error) or str(error.__cause__)
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        key = found[1]
        keys = [path for path, _ in _leaves(OmegaConf.to_container(_composed(roots, ())))]
        section, _, name = key.partition(".")
        if section == "space" and f"recipe.{name}" in keys:
            return f"{key}: is not searched so far. To search it, write +{key}=..."
        return f"{key}: no such key. Did you mean `{nearest(key, keys)[0]}`?"
    return f"The configuration can't be composed: {_first_line(error)}"


def _resolved(config: Any) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        place = error.full_key or "A value"
        raise ConfigError(
            f"{place}: what it refers to can't be had: {_first_line(error)}. Set the environment variable or "
            "correct the name between ${ and }."
        ) from error


def _without_environment(node: Any) -> Any:
    """The unresolved node with each value from the environment hidden, and so whatever refers to it."""
    if isinstance(node, dict):
        return {key: _without_environment(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_environment(value) for value in node]
    return HIDDEN if isinstance(node, str) and "oc.env" in node else node


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


def _missing(key: str, known: Mapping[str, Mapping[str, Path]]) -> str:
    if key == "name":
        offer = _offer("experiment", "", known["experiment"])
        return f"name: no experiment is chosen. Write +experiment=NAME. {offer}"
    return f"{key}: must be given. Write {key}=... or set it in the experiment's file."


def _offer(group: str, name: str, choices: Any) -> str:
    if not choices:
        return f"There are none: no folder {group}/ on the search path holds a file."
    return f"There are: {', '.join(nearest(name, choices))}."


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


def _first_line(error: Exception) -> str:
    """What an error of Hydra says, without its frame: the first line that is not one."""
    text = str(error).strip() or str(error.__cause__).strip() or type(error).__name__
    lines = [line for line in text.splitlines() if not line.startswith("Error parsing override")]
    line = re.sub(r"^\w+ raised while resolving interpolation: ", "", (lines or [text])[0])
    return str(hidden(line)).rstrip(".")
