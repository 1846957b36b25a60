"""Secrets never reach a screen or a record: values under names like `HF_TOKEN`, and passwords inside addresses."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"

_SECRET_NAME = re.compile(r"(?:^|_)(?:key|token|secret|password|passwd|credentials?|authorization)(?:$|_)")
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")


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
