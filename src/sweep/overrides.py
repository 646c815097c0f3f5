"""Overrides as a person types them, read by Hydra's grammar; what can't be meant is told with what may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from sweep.errors import ConfigError
from sweep.redaction import hidden
from sweep.schema import nearest

# Groups that the defaults list doesn't name: they are added with a plus.
ADDED = ("experiment", "best")
# Groups with a choice that takes a path, and where it does.
_BY_PATH = {"data": "data=own data.path", "model": "model=hub model.path"}

Groups = Mapping[str, Mapping[str, Path]]


def parse(overrides: Sequence[str], known: Groups) -> list[Override]:
    """The overrides as given, but spaces in the grammar as the texts that files would hold.

    known: the files of each group. Raises ConfigError for what is no override or can't be meant.
    """
    parser = OverridesParser.create()
    parsed = []
    for at, line in enumerate(overrides):
        _check_form(line, overrides[at + 1 :], known)
        override = _as_text(parser, _read(parser, line))
        _check(override, known)
        parsed.append(override)
    for group in ADDED:
        chosen = [str(hidden(o.input_line)) for o in parsed if o.key_or_group == group and o.is_add()]
        if len(chosen) > 1:
            raise ConfigError(f"{' and '.join(chosen)}: only one {group} can be chosen. Drop the others.")
    return parsed


def offer(group: str, name: str, choices: Iterable[str]) -> str:
    """The choices of a group for who named one that isn't there, the nearest first."""
    if found := nearest(name, choices):
        return f"There are: {', '.join(found)}. Choose one of them."
    if group == "best":
        return "There are none yet: a sweep writes them. Run it first."
    return f"There are none. Write one, {_home(group)}/NAME.yaml."


def _check_form(override: str, following: Sequence[str], known: Groups) -> None:
    """Nothing, or ConfigError for what has not the form of an override."""
    if override in ("-m", "--multirun"):
        raise ConfigError(
            f"{override}: a multirun starts unrelated runs; here one run is the whole search. Drop it "
            "and name what to search: space=lora, or 'space.lora_rank=choice(8, 16)'."
        )
    shown = hidden(override)
    if override.startswith("-"):
        meant = _meant(override.lstrip("-"), following, known)
        known_key = "." in meant or meant.lstrip("+").partition("=")[0] in known
        raise ConfigError(
            f"{shown}: no such option; overrides are written key=value. "
            f"{f'Write {meant}' if known_key else 'Drop it'}; --help shows them."
        )
    if "=" not in override and not override.startswith("~"):
        raise ConfigError(
            f"{shown}: can't be read: an equals sign and a value must follow the key, without spaces. "
            f"Write {_meant(override, following, known)}; --help shows what there is."
        )


def _meant(word: str, following: Sequence[str], known: Groups) -> str:
    """The override that a key or a bare name may have been meant for."""
    key, _, value = re.sub(r"[=:]", "=", word.lstrip("+"), count=1).partition("=")
    if key in known["experiment"]:
        return f"+experiment={key}"
    rest = [other for other in following if other != "="]
    if not value and rest and re.fullmatch(r"[^-+~=][^=]*", rest[0]):
        value = rest[0]
    plus = "+" if key in ADDED or word.startswith("+") else ""
    return str(hidden(f"{plus}{key}={value or ('NAME' if key in known else 'VALUE')}"))


def _read(parser: OverridesParser, override: str) -> Override:
    try:
        return parser.parse_override(override)
    except HydraException as error:
        key, _, value = override.partition("=")
        # Without brackets, quotes and commas a value can only be a text, whatever letters it holds.
        if not re.search(r"""[][(){},'"$]""", value):
            return parser.parse_override(f"{key}={QuotedString(value, Quote.single).with_quotes()}")
        raise ConfigError(
            f"{hidden(override)}: can't be read: {_reason(value, error)}. Write key=value, and quote what "
            "holds spaces, commas, brackets or an equals sign: \"key='a, b'\"."
        ) from error


def _reason(value: str, error: HydraException) -> str:
    if any(value.count(opening) != value.count(closing) for opening, closing in ("()", "[]", "{}")):
        return "a bracket is not closed, or a space cut the value off"
    if any(value.count(quote) % 2 for quote in "'\""):
        return "a quote is not closed, or a space cut the value off"
    evaluated = re.match(r"\w+ while evaluating (.*)", str(error))
    return evaluated[1] if evaluated else "it is no text, number, list or mapping"


def _as_text(parser: OverridesParser, override: Override) -> Override:
    key, line = override.key_or_group, cast("str", override.input_line)
    named = override.value_type != ValueType.SIMPLE_CHOICE_SWEEP
    if not (override.is_sweep_override() and key.startswith("space.") and named):
        return override
    prefix, _, text = line.partition("=")
    return parser.parse_override(f"{prefix}={QuotedString(text, Quote.single).with_quotes()}")


def _check(override: Override, known: Groups) -> None:
    key, line = override.key_or_group, str(hidden(override.input_line))
    if override.is_sweep_override():
        raise ConfigError(_several(override, line))
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        raise ConfigError(f"{line}: Hydra itself is not configurable here. Drop it.")
    if key not in known or override.is_delete():
        return
    value = override.value()
    if key in ADDED and not override.is_add():
        raise ConfigError(
            f"{line}: `{key}` is added to the defaults. Write +{key}={str(value).lstrip('+') or 'NAME'}."
        )
    if not isinstance(value, str | list | dict):
        raise ConfigError(f"{line}: the name of a file in {key}/ must stand here. Write {key}=NAME.")
    chosen = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    for name in map(str, chosen):
        if name not in known[key]:
            raise ConfigError(f"{key}={name}: no such file. {_elsewhere(key, name, known[key])}")
        if key in ADDED:
            _check_header(known[key][name])


def _elsewhere(group: str, name: str, choices: Mapping[str, Path]) -> str:
    """What to write instead, or where a file of that name lies that is not looked at."""
    stem = re.sub(r"\.ya?ml$", "", name).rpartition("/")[2]
    plus = "+" if group in ADDED else ""
    if stem in choices:
        return f"Its name alone must stand here. Write {plus}{group}={stem}."
    folders = [Path(top) / below for top in (".", "conf", "sweeps") for below in (".", group)]
    files = (folder / f"{stem}{ending}" for folder in folders for ending in (".yaml", ".yml"))
    if stem and (found := next((file for file in files if file.is_file()), None)):
        return f"{found} is not looked at. Move it to {_home(group)}/{stem}.yaml."
    own = f" For one of your own, write {_BY_PATH[group]}={name}." if group in _BY_PATH else ""
    if group == "experiment":
        own = " If it is one of yours, change to the folder that holds conf/experiment first."
    return offer(group, name, choices) + own


def _home(group: str) -> str:
    return f"sweeps/{group}" if group in ("best", "space") else f"conf/{group}"


def _check_header(file: Path) -> None:
    """Nothing, or ConfigError: without its first line the file's keys would stand under its group's name."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        line = file.read_bytes().count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file}, line {line}: is not UTF-8; a configuration file must be. Save it as UTF-8."
        ) from error
    if text.startswith("\ufeff"):
        raise ConfigError(
            f"{file}: begins with a byte order mark, which hides its first line; it must be plain UTF-8. "
            "Save it without the mark (BOM)."
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not re.fullmatch(r"#\s*@package\s+_global_", first):
        raise ConfigError(
            f"{file}: its first line is {first!r}; it must be `# @package _global_`, so that the keys below "
            "count for the whole configuration. Put it there."
        )


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
