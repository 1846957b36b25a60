"""vLLM itself: its command line, its flags, its log."""

from __future__ import annotations
