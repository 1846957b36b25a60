"""When Slurm would start a server's job, as its site asks and with less time, fewer cores or less memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import SlurmError
from tautools.server.on_slurm.launch import script_text
from tautools.slurm import Slurm
from tautools.slurm.jobs import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["Offer", "offers"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to ask for the job."""

    asks: str
    """What is asked for, as the site file would say it."""
    starts_at: float | None = None
    """When Slurm thinks that it would start [s since the epoch]; None when it does not tell or refuses it."""
    refused: str = ""


def offers(params: ServerParams, site: SiteParams, *, workspace: Path) -> list[Offer]:
    """Return when the job would start as the site asks, first, and with less of one thing; nothing is submitted.

    Cards are not varied: a server needs the ones that it needs.

    Raises
    ------
    ParamsError
        When a value cannot stand in a job script.
    """
    return [_offer(asks, params, each, workspace) for asks, each in _ways(site)]


def _offer(asks: str, params: ServerParams, site: SiteParams, workspace: Path) -> Offer:
    text = script_text(params, workspace=workspace, site=site, name=params.name)
    try:
        return Offer(asks, Slurm().test_only(text))
    except SlurmError as error:
        return Offer(asks, refused=error.problem)


def _ways(site: SiteParams) -> Iterator[tuple[str, SiteParams]]:
    yield f"as site {site.name} asks", site
    whole_s = parse_duration(site.time_limit or "")
    for share in (2, 4):
        minutes = int((whole_s or 0) / 60 / share)
        if minutes >= 30:
            limit = f"{minutes // 60:02}:{minutes % 60:02}:00"
            yield f"time_limit: {limit}", site.model_copy(update={"time_limit": limit})
    if site.cores is not None and site.cores > 4:
        yield f"cores: {site.cores // 2}", site.model_copy(update={"cores": site.cores // 2})
    if site.memory_gib is not None and site.memory_gib > 8:
        yield f"memory_gib: {site.memory_gib // 2}", site.model_copy(update={"memory_gib": site.memory_gib // 2})
