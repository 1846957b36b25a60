"""What must not be seen: names of secrets, and texts without their values.

Texts of other libraries (httpx, aiohttp, litellm, the hub's client) quote requests, addresses and headers. They become
evidence in `TautoolsError`, which passes them through `redacted`; who shortens such a text does it after that, since
half a key is a key that is no longer recognised.
"""

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

HIDDEN = "(hidden)"
"""What a secret is shown and recorded as."""

_SECRET_NAME = re.compile(r"(?:^|_)(?:key|token|secret|password|passwd|credentials?|authorization)(?:$|_)")
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
_IN_QUERY = re.compile(r"([?&](?:api[_-]?)?(?:key|token|access_token)=)[^&\s'\"]+", re.IGNORECASE)
_IN_HEADER = re.compile(r"(?:(?<=bearer )|(?<=basic ))(?=\S*\d)[\w.~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:api[_-]?key|auth[_-]?token|password)['\"]?\s*[:=]\s*\[?['\"]?)[^\s'\",}\]]{6,}", re.IGNORECASE
)
_USUAL_FORM = re.compile(r"\b(?:hf_|sk-|sk_|ghp_|gsk_|AIza)[A-Za-z0-9_-]{16,}")
_NO_SECRETS = {"dummy", "empty", "none", "null", "test", "token"}
"""What people give as a key where none is asked for; such words are not hidden."""
_SHORTEST = 4
_LONG = 8
"""A secret from so many characters on is hidden inside longer words, too."""

_remembered: set[str] = set()


@functools.lru_cache(maxsize=4096)
def names_a_secret(name: str) -> bool:
    """Whether a value with this name must not be shown; `api_key_env` only names a variable and may be."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_")
    return bool(_SECRET_NAME.search(plain)) and plain != "api_key_env"


def without_secrets(value: Any, *, name: str = "") -> Any:
    """Return a copy of JSON-like `value` in which secrets are replaced by `(hidden)`."""
    if isinstance(value, dict):
        return {key: without_secrets(each, name=str(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [without_secrets(each, name=name) for each in value]
    if isinstance(value, str) and value:
        return HIDDEN if names_a_secret(name) else _IN_ADDRESS.sub(f"{HIDDEN}@", value)
    return value


def remember_secret(value: str) -> None:
    """Hide a value in every text from here on, in this process."""
    if value:
        _remembered.add(value)


def redacted(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return a text of another program without keys: those that were read here, those in `environ`, and what looks so.

    Parameters
    ----------
    text : str
        An exception's text, an answer's body, a line of a log.
    environ : mapping, optional
        Where variables with a secret's name are looked up, and every value of theirs from four characters on is hidden,
        as befits a text for other people's eyes. By default it is this process's environment, and short values and
        paths stay, or errors could not be read.
    """
    if not text:
        return text
    for name, value in (environ or {}).items():
        if names_a_secret(name) and len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    for secret in sorted({*_remembered, *_secret_values(os.environ)}, key=len, reverse=True):
        text = _without(text, secret)
    shown = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_ADDRESS.sub(f"{HIDDEN}@", text))
    shown = _ASSIGNED.sub(rf"\1{HIDDEN}", _IN_HEADER.sub(HIDDEN, shown))
    return _USUAL_FORM.sub(HIDDEN, shown)


def redacted_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines of another program's log without keys."""
    return redacted("\n".join(lines)).split("\n") if lines else []


def _secret_values(environ: Mapping[str, str]) -> Iterable[str]:
    for name, value in environ.items():
        plain = value.strip().strip("'\"")
        # A short one is a count or a switch (MAX_TOKEN=4096), a path only says where a secret lies.
        if len(plain) >= _LONG and names_a_secret(name) and not plain.startswith(("/", "~")):
            yield plain


def _without(text: str, secret: str) -> str:
    if len(secret) < _SHORTEST or secret.lower() in _NO_SECRETS:
        return text
    if len(secret) < _LONG:
        return re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", HIDDEN, text)
    for form in dict.fromkeys((secret, repr(secret)[1:-1], quote(secret, safe=""))):
        text = text.replace(form, HIDDEN)
    return text
