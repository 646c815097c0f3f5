"""Classes that a configuration names by `_target_`: found within bounds, checked, built later."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from sweep.errors import ConfigError
from sweep.redaction import hidden, remember
from sweep.schema import Code, check_keys, convert, nearest, shown

ALLOWED = ("sweep", "optuna.samplers", "optuna.pruners")
# Constructor arguments that no YAML holds: whoever builds the target passes them.
RUNTIME = frozenset({"inputs", "seed", "make_engine"})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A class and the arguments that the configuration at `path` gives it; nested targets among them."""

    path: str
    cls: type
    arguments: Mapping[str, object]

    def __str__(self) -> str:
        """The class and its arguments, as `Asha(eta=3, rungs=2)`."""
        given = ", ".join(f"{name}={hidden(value, name)}" for name, value in self.arguments.items())
        return f"{self.cls.__name__}({given})"

    def build(self, **runtime: object) -> Any:
        """A new object. Raises ConfigError where the class refuses its arguments by a ValueError."""
        if twice := sorted(self.arguments.keys() & runtime.keys()):
            raise ConfigError(f"{self.path}.{twice[0]}: the sweep sets this itself. Remove it.")
        known = inspect.signature(self.cls).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
        if not open_ended and (strange := sorted(runtime.keys() - known.keys())):
            raise ConfigError(
                f"{self.path}: {self.cls.__name__} takes no `{strange[0]}`, which the sweep passes. Name "
                "another class."
            )
        # A worker has no configuration to know them from.
        remember(self.arguments)
        arguments = {name: _built(value) for name, value in self.arguments.items()}
        try:
            return self.cls(**arguments, **runtime)
        except ValueError as error:
            raise ConfigError(f"{self.path}: {self.cls.__name__} {error}.") from error


def built(named: Mapping[str, Target]) -> dict[str, Any]:
    """What targets build, by the names that they stand under."""
    return {name: target.build() for name, target in named.items()}


def read_target(
    node: object,
    path: str,
    *,
    kind: type | None = None,
    trusted: Sequence[str] = (),
    strays: Collection[str] = (),
) -> Target:
    """The target that a mapping with `_target_` describes, its keys checked against the constructor.

    kind: a base class or a protocol of which the class must be. trusted: further modules or classes
    allowed. strays: dotted keys that are left out where the class does not take them. Raises ConfigError.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{path}: keys with a `_target_` must stand here, got {shown(node, path)}.")
    cls = _resolve(node["_target_"], f"{path}._target_", trusted=trusted)
    if kind is not None:
        _check_kind(cls, kind, path)
    given = {str(name): value for name, value in node.items() if name != "_target_"}
    parameters = inspect.signature(cls).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: v for name, v in given.items() if name in parameters or f"{path}.{name}" not in strays}
        # RUNTIME ones are refused when it is built, with the reason.
        written = {name: value for name, value in given.items() if name not in RUNTIME}
        check_keys(written, [name for name in parameters if name not in RUNTIME], path)
    hints = hints_of(cls)
    arguments = {
        name: _argument(hints.get(name, object), value, f"{path}.{name}", trusted=trusted)
        for name, value in given.items()
    }
    named = (p for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    required = (p.name for p in named if p.default is p.empty and p.name not in RUNTIME)
    if missing := [name for name in required if name not in arguments]:
        raise ConfigError(f"{path}.{missing[0]}: missing; {cls.__name__} needs it. Add it.")
    return Target(path=path, cls=cls, arguments=arguments)


def named_in(target: Target) -> Iterator[Target]:
    """The target and all that are nested in it."""
    yield target
    for value in target.arguments.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Target):
                yield from named_in(inner)


def hints_of(cls: type) -> dict[str, object]:
    """The types of the constructor's arguments; `object` where one is not known at run time."""
    return {name: _hint(cls, parameter) for name, parameter in inspect.signature(cls).parameters.items()}


def _resolve(dotted: object, path: str, *, trusted: Sequence[str]) -> type:
    """The class of that dotted name, defined under an allowed prefix and not merely reachable through one.

    A check of the name alone is bypassed by what allowed modules import themselves, such as
    `optuna.samplers._gp.sampler.torch.load`.
    """
    allowed = (*ALLOWED, *trusted)
    module_name, _, name = _permitted(dotted, path, trusted=trusted).rpartition(".")
    if not module_name:
        raise ConfigError(f"{path}: {dotted!r} is no class; module and class must stand here, module.Class.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{path}: {dotted!r} can't be imported: {error}. Check its spelling and what it needs installed."
        ) from error
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        offered = ", ".join(nearest(name, classes)[:3])
        raise ConfigError(f"{path}: {module_name} has no class {name!r}. Nearest: {offered or 'none'}.")
    cls = getattr(module, name)
    if not isinstance(cls, type):
        raise ConfigError(f"{path}: {dotted!r} is a {type(cls).__name__}; a class must stand here.")
    real = f"{cls.__module__}.{cls.__qualname__}"
    if not _under(real, allowed):
        raise ConfigError(
            f"{path}: {dotted!r} is {real}, which is not under {', '.join(allowed)}. If you trust it, "
            f"write trusted_targets=[{cls.__module__}] on the command line."
        )
    return cls


def _permitted(dotted: object, path: str, *, trusted: Sequence[str]) -> str:
    allowed = (*ALLOWED, *trusted)
    if not _under(str(dotted), allowed) or any(part.startswith("__") for part in str(dotted).split(".")):
        raise ConfigError(
            f"{path}: {dotted!r} is not under {', '.join(allowed)}. For code of your own that you trust, "
            "write trusted_targets=[your.module] on the command line."
        )
    return str(dotted)


def _under(dotted: str, prefixes: Sequence[str]) -> bool:
    return any(dotted == prefix or dotted.startswith(f"{prefix}.") for prefix in prefixes)


def _check_kind(cls: type, kind: type, path: str) -> None:
    """Nothing, or ConfigError: the class is none of that base class, or lacks what the protocol asks for."""
    protocol = getattr(kind, "_is_protocol", False)
    lacking = _lacking(cls, kind) if protocol else []
    if lacking or not (protocol or issubclass(cls, kind)):
        why = f": it lacks {', '.join(lacking)}" if lacking else ""
        raise ConfigError(
            f"{path}._target_: {cls.__name__} is no {kind.__name__}{why}. Name a class that is one."
        )


def _lacking(cls: type, protocol: type) -> list[str]:
    """What the protocol asks for and the class has not."""
    wanted = [name for name in vars(protocol) if not name.startswith("_") or name == "__call__"]
    # Where the class's own bases define them: hasattr finds the `__call__` by which any class is called.
    own = {name for base in cls.__mro__ for name in (*vars(base), *inspect.get_annotations(base))}
    return [name for name in wanted if name not in own]


def _hint(cls: type, parameter: inspect.Parameter) -> object:
    """The parameter's type, `object` where its annotation names what only a type checker imports."""
    if parameter.annotation is parameter.empty:
        return object
    holder = type("holder", (), {"__annotations__": {"it": parameter.annotation}})
    # A field that a base class declares may name what only the base's module knows.
    known: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        known |= vars(sys.modules[base.__module__])
    try:
        return get_type_hints(holder, known)["it"]
    except NameError:
        return object


def _argument(hint: object, value: object, path: str, *, trusted: Sequence[str]) -> object:
    if hint is Code:
        return _permitted(value, path, trusted=trusted)
    if isinstance(value, Mapping) and "_target_" in value:
        members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kinds = [member for member in members if isinstance(member, type) and member is not object]
        kind = next((member for member in kinds if member is not type(None)), None)
        return read_target(value, path, kind=kind, trusted=trusted)
    if isinstance(value, list) and any(isinstance(item, Mapping) and "_target_" in item for item in value):
        return [_argument(object, item, f"{path}[{k}]", trusted=trusted) for k, item in enumerate(value)]
    if inspect.isabstract(hint):
        raise ConfigError(
            f"{path}: a class must be named here, {{_target_: ...}}, a {cast('type', hint).__name__}; "
            f"got {shown(value, path)}."
        )
    return convert(hint, value, path)


def _built(value: object) -> object:
    if isinstance(value, Target):
        return value.build()
    if isinstance(value, list):
        return [_built(item) for item in value]
    return value
