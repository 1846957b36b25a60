"""Where a server runs: as a process of this machine, as a job of Slurm, or somewhere else, attached by its address."""

from __future__ import annotations
