"""A configuration as it may be saved: without what came from the environment."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env

from sweep.redaction import HIDDEN


def without_environment(raw: dict[str, Any]) -> Any:
    """The unresolved configuration, resolved with *** for each value of the environment.

    Resolved, for a file may spell `oc.env` in pieces. What does not resolve so is hidden whole.
    """
    OmegaConf.register_new_resolver("oc.env", lambda *given: HIDDEN, replace=True)
    try:
        return _one_by_one(OmegaConf.create(raw))
    finally:
        OmegaConf.register_new_resolver("oc.env", env, replace=True)


def _one_by_one(node: DictConfig | ListConfig) -> Any:
    if isinstance(node, DictConfig):
        return {str(key): _value_at(node, key) for key in node}
    return [_value_at(node, at) for at in range(len(node))]


def _value_at(node: DictConfig | ListConfig, key: Any) -> Any:
    try:
        value = node[key]
    except OmegaConfBaseException:
        return HIDDEN
    return _one_by_one(value) if isinstance(value, DictConfig | ListConfig) else value
