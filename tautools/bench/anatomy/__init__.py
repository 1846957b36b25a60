"""Why a conversation failed, told from what it did and what its task's reference does; no model is asked."""

from __future__ import annotations

from tautools.bench.anatomy.actions import ActionFate, Fate
from tautools.bench.anatomy.dissect import Anatomy, dissect
from tautools.bench.anatomy.fields import FieldDifference

__all__ = ["ActionFate", "Anatomy", "Fate", "FieldDifference", "dissect"]
