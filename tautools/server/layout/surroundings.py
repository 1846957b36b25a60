"""What a layout has to respect, asked of this machine or taken from a site's file: cards, models, ports."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.errors import ServerError
from tautools.server.cards.guard import allowed_cards, promised_cards, site_cards
from tautools.server.cards.node import Card, Device
from tautools.server.layout.plan import Surroundings
from tautools.server.layout.ports import choose_port
from tautools.server.registry import Registry
from tautools.server.vllm.fit import model_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["on_any_node", "on_site", "on_this_node"]


def on_this_node(servers: Sequence[ServerParams], site: SiteParams, workspace: Path, *, force: bool) -> Surroundings:
    """Return what there is here: cards with their holders, promised cards, taken ports, models on disk.

    Parameters
    ----------
    servers : sequence of ServerParams
        What shall be planned.
    site : SiteParams
        Says which kind of cards the node has, and the address whose ports count.
    workspace : Path
        Whose servers hold cards and ports; a relative model folder counts from it.
    force : bool
        Whether cards in use may be given out when they are asked for.

    Raises
    ------
    ServerError
        When the site has cards and they cannot be read.
    """
    registry = Registry(workspace)
    # Simulated servers need no card, and asking for them takes seconds on a busy node.
    cards = site_cards(site) if any(params.engine == "vllm" for params in servers) else []
    return Surroundings(
        site,
        allowed_cards(cards),
        known=bool(cards) or site.device != "cuda",
        promised=promised_cards(registry) if cards else {},
        facts={params.model: model_facts(params.model, workspace=workspace) for params in servers},
        taken_ports=_taken_ports(servers, site, registry),
        force=force,
    )


def on_any_node(servers: Sequence[ServerParams], site: SiteParams, workspace: Path, *, force: bool) -> Surroundings:
    """Return what is known of nodes that a scheduler will choose: nothing but the models.

    Parameters
    ----------
    servers, site, workspace, force
        As in `on_this_node`.
    """
    facts = {params.model: model_facts(params.model, workspace=workspace) for params in servers}
    return Surroundings(site, known=False, facts=facts, force=force)


def on_site(servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> Surroundings:
    """Return what one node of the site has, by the site's file; its cards are taken as idle."""
    total_mib = int(site.card_memory_gib * 1024) if site.card_memory_gib else 0
    device: Device = "gaudi" if site.device == "gaudi" else "cuda"
    return Surroundings(
        site,
        [Card(device, index, index, 0, total_mib) for index in range(site.cards_per_node or 0)],
        known=site.cards_per_node is not None,
        facts={params.model: model_facts(params.model, workspace=workspace) for params in servers},
    )


def _taken_ports(servers: Sequence[ServerParams], site: SiteParams, registry: Registry) -> set[int]:
    """Return which of the ports that the servers would get cannot be had; it ends where enough were found free."""
    here = {"", socket.gethostname()}
    promised = {urlsplit(record.base_url).port or 0 for record in registry.list() if record.host in here}
    taken: set[int] = set()
    enough = sum(params.replicas for params in servers)
    for params in servers:
        if params.start_port is None:
            continue
        free = 0
        last = params.end_port if params.end_port is not None else params.start_port + params.replicas - 1
        for port in range(params.start_port, min(last, 65535) + 1):
            if free == enough:
                break
            if _is_free(site.host, port, promised):
                free += 1
            else:
                taken.add(port)
    return taken


def _is_free(host: str, port: int, promised: set[int]) -> bool:
    if port < 1024 and os.getuid() != 0:
        return False
    try:
        choose_port(host, asked=port, avoid=promised)
    except ServerError:
        return False
    return True
