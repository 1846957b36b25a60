"""What all records share, and the form in which they are hashed."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Record", "canonical_json"]


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces, the form in which things are hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Record(BaseModel):
    """A value that goes to disk."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    schema_version: int = 1
