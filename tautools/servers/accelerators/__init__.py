"""The accelerators of a node: read, assigned to servers, and released."""

from __future__ import annotations
