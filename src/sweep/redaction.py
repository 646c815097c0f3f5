"""What text must not carry out of the process: secrets, and signs that command a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"

# `max_tokens` and `tokenizer` are no secrets.
_NAME = (
    r"(?:passw(?:or)?d|passphrase|token(?!s|iz)|secret|credential|authorization|"
    r"(?:api|access|private|signing|encryption)_?key)"
)
_SECRET_KEY = re.compile(rf"{_NAME}|tokens$|(?:^|[_-])(?:key|keys|pass|pwd)$", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    rf"(?!.*_(?:FILE|PATH|DIR|URL|URI)$).*(?:{_NAME}|_KEY$|_PASS$|_PWD$)", re.IGNORECASE
)
# Shorter ones are words that stand in texts for other reasons.
_LEAST_LENGTH = 6
# A slash and an at sign need not be quoted for a driver to take them as the password's.
_ADDRESS = re.compile(r"(?<=://)(?P<user>[^\s/@:\"]*)(?P<password>:[^\s\"]*)?@")
_IN_TEXT = (
    (re.compile(r"(?<=http://)[^\s/@:\"]*(?::[^\s\"]*)?@"), f"{HIDDEN}@"),
    (re.compile(r"(?<=https://)[^\s/@:\"]*(?::[^\s\"]*)?@"), f"{HIDDEN}@"),
    (re.compile(r"(://[^\s/@:\"]*):[^\s\"]*@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)[^\r\n'\"]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"({_NAME}[\w-]*['\"]\s*:\s*['\"])[^'\"]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Of a dotted key the last part, or one that is just that: a metric `token_accuracy` has keys, too.
    (
        re.compile(rf"({_NAME}(?:[^=\s&/.]*|s?\.[^=\s&/]*)=)(?:'[^']*'|\"[^\"]*\"|[^&\s]+)", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
)
# But line ends and tabs: C0, C1, what turns the direction of writing, halves of a character.
_COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What stands before a secret is no part of its word: nothing, or a line end or tab that is spelled out.
_BEGINS, _ENDS = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))", r"(?![A-Za-z0-9])"

# What the configuration holds beside the environment, for as long as the process lives.
_remembered: set[str] = set()


def redact(value: Any) -> Any:
    """The value with every secret in its texts hidden.

    Secrets are known by where they stand in a text (addresses, `password=...`) and by what they are: what
    the environment holds under a name such as `HF_TOKEN`, and what was remembered.
    """
    if isinstance(value, Mapping):
        return {redact(name): redact(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for pattern, replacement in _IN_TEXT:
        value = pattern.sub(replacement, value)
    found = {secret for secret in (*_remembered, *_of_environment()) if secret in value}
    for secret in sorted(found, key=len, reverse=True):
        value = re.sub(f"{_BEGINS}{re.escape(secret)}{_ENDS}", HIDDEN, value)
    return value


def hidden(value: Any, key: str = "", *, secret: bool = False) -> Any:
    """The same for a configuration, where whatever stands under a key such as `api_key` is hidden too."""
    if isinstance(value, Mapping):
        # A class may be named after what it counts, such as a metric `token_accuracy`.
        inherits = _is_secret(key, "", secret=secret) and "_target_" not in value
        return {name: hidden(inner, str(name), secret=inherits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(inner, key, secret=secret) for inner in value]
    return HIDDEN if _is_secret(key, value, secret=secret) else redact(value)


def remember(value: object, key: str = "", *, secret: bool = False) -> None:
    """Hide from now on, wherever they stand, the secrets of this configuration."""
    if isinstance(value, Mapping):
        inherits = _is_secret(key, "", secret=secret) and "_target_" not in value
        for name, inner in value.items():
            remember(inner, str(name), secret=inherits)
    elif isinstance(value, list | tuple):
        for inner in value:
            remember(inner, key, secret=secret)
    elif isinstance(value, str | int | float):
        whole = (str(value),) if _is_secret(key, value, secret=secret) else ()
        of_address = _of_address(value) if isinstance(value, str) else ()
        for word in (*whole, *of_address):
            _remembered.update(_forms(word))


def known_in(pickled: bytes) -> frozenset[str]:
    """The secrets known here that a pickled value spells out; who reads it must know them, and no others."""
    known = (*_remembered, *_of_environment())
    return frozenset(word for word in known if word.encode(errors="surrogatepass") in pickled)


def remember_words(secrets: Iterable[str]) -> None:
    """Hide these from now on, which another process knew, as they are and as texts show them."""
    for word in secrets:
        _remembered.update((word, *_forms(word), *_forms(unquote(word))))


def printable(text: str) -> str:
    """The text for a terminal: secrets hidden, and spelled out what would command it or hide what follows."""
    return _COMMANDING.sub(lambda found: found.group().encode("unicode_escape").decode(), str(redact(text)))


class Printable(logging.Formatter):
    """Log lines as `printable` makes them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _is_secret(key: str, value: object, *, secret: bool) -> bool:
    if value is None or isinstance(value, bool):
        return False
    counted = isinstance(value, int | float) and key.lower().endswith("tokens")
    return secret or (_SECRET_KEY.search(key) is not None and not counted)


def _of_environment() -> frozenset[str]:
    # As bytes: to decode all of it at every text took a tenth of a sweep on closed forms.
    return _of_variables(tuple(os.environb.items()))


@lru_cache(maxsize=1)
def _of_variables(variables: tuple[tuple[bytes, bytes], ...]) -> frozenset[str]:
    found: set[str] = set()
    for name, value in ((os.fsdecode(name), os.fsdecode(value)) for name, value in variables):
        for word in (value,) if _SECRET_VARIABLE.match(name) else tuple(_of_address(value)):
            for form in _forms(word):
                found.update((form, quote(form, safe=""), quote_plus(form)))
    return frozenset(found)


def _forms(word: str) -> Iterator[str]:
    """The secret without the line end that files give it, and as texts show one that has line ends inside."""
    bare = word.strip()
    if len(bare) >= _LEAST_LENGTH:
        yield from {bare, bare.encode("unicode_escape").decode(), json.dumps(bare)[1:-1]}


def _of_address(text: str) -> Iterator[str]:
    """The passwords of the addresses in a text, quoted and as they are sent."""
    for found in _ADDRESS.finditer(text) if "@" in text else ():
        password = (found["password"] or "").removeprefix(":")
        # What is also the user's name hides nothing, and may be a word of everywhere.
        if password and password != found["user"]:
            # An at sign that is not quoted ends it for some drivers, which take the rest for the host.
            yield from (password, unquote(password), *password.split("@"))
