"""Which server gets which cards and which port, planned as a whole before anything is started.

`plan_layout` is arithmetic over a `NodeState`; the functions that return one ask this machine or read a site's file.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.errors import ServerError
from tautools.servers.accelerators.assignment import allowed_cards, cards_needed, promised_cards, site_cards
from tautools.servers.accelerators.probe import Card
from tautools.servers.model_cache import ModelFacts, model_facts, why_not_fit
from tautools.servers.ports import choose_port
from tautools.servers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers.accelerators.probe import Device


@dataclass(frozen=True, slots=True)
class PlannedServer:
    """One server of a layout."""

    name: str
    params: ServerParams
    """As it will be launched: one replica, with its own cards and port."""
    facts: ModelFacts

    @property
    def cards(self) -> list[int]:
        """Its cards, by index."""
        return self.params.cards


@dataclass(frozen=True, slots=True)
class Layout:
    """Servers in the order of their start, and why they cannot be started like that."""

    places: list[PlannedServer]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self) -> Layout:
        """Return the layout when it can be started.

        Raises
        ------
        ServerError
            With everything that is wrong with it.
        """
        if self.problems:
            raise ServerError(
                f"These servers cannot be started like that: {len(self.problems)} "
                f"{'problem' if len(self.problems) == 1 else 'problems'}.",
                evidence="\n".join(self.problems),
                next_step="Change replicas, cards or ports; `tautools server plan NAME...` shows the layout.",
            )
        return self


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a plan has to respect."""

    site: SiteParams
    cards: Sequence[Card] = ()
    """The node's cards that may be used; none where they are not known."""
    known: bool = True
    """Whether `cards` is all there is; False for a node that cannot be looked at."""
    promised: Mapping[int, str] = field(default_factory=dict)
    """Cards of running servers, with the server's name."""
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    """By model."""
    taken_ports: Collection[int] = ()
    force: bool = False
    """Whether cards in use may be given out when they are asked for."""


def plan_layout(servers: Sequence[ServerParams], around: NodeState, *, gpu_ids: Sequence[int] | None = None) -> Layout:
    """Give each replica of each server its name, cards and port.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start; `replicas`, `cards`, `start_port` as written or overridden.
    around : Surroundings
        The node.
    gpu_ids : sequence of int, optional
        Only these cards are given out, in this order, instead of those written in the files or of every idle one.
    """
    if gpu_ids is not None:
        servers = [params.model_copy(update={"cards": []}) for params in servers]
    return _LayoutPlanner(servers, around, gpu_ids).plan()


class _LayoutPlanner:
    def __init__(self, servers: Sequence[ServerParams], around: NodeState, gpu_ids: Sequence[int] | None) -> None:
        self._servers = servers
        self._around = around
        self._gpu_ids = gpu_ids
        self._by_index = {card.index: card for card in around.cards}
        self._problems: list[str] = []
        self._ports: set[int] = set(around.taken_ports)
        self._notes: list[str] = []
        self._free = self._pool()

    def plan(self) -> Layout:
        places = [place for params in self._servers for place in self._replicas(params)]
        for name, count in Counter(place.name for place in places).items():
            if count > 1:
                self._problems.append(f"{name}: {count} servers of that name")
        for index, count in Counter(index for place in places for index in place.cards).items():
            if count > 1:
                holders = ", ".join(place.name for place in places if index in place.cards)
                self._problems.append(f"card {index} is given to {holders}; a card holds one server")
        return Layout(places, self._problems, self._notes)

    def _pool(self) -> list[int]:
        """Return the cards to give out."""
        asked = self._gpu_ids
        if asked is None:
            by_hand = {index for params in self._servers for index in params.cards}
            idle = [index for index in self._by_index if not self._why_not(index)]
            held = [index for index in self._by_index if index not in idle] if self._around.force else []
            return [index for index in idle + held if index not in by_hand]
        for index, count in Counter(asked).items():
            if count > 1:
                self._problems.append(f"card {index} is named {count} times")
        return [index for index in dict.fromkeys(asked) if self._usable(index)]

    def _usable(self, index: int) -> bool:
        """Whether a card that a person named may be given out; a problem is noted when not."""
        if not self._by_index and not self._around.known:
            return True
        if index not in self._by_index:
            here = ", ".join(str(each) for each in self._by_index) or "none"
            self._problems.append(f"card {index} is not among the cards of this node ({here})")
            return False
        why = self._why_not(index)
        if why and not self._around.force:
            self._problems.append(f"card {index} is in use: {why}")
            return False
        return True

    def _why_not(self, index: int) -> str:
        if index in self._around.promised:
            return f"it belongs to server {self._around.promised[index]!r}"
        return self._by_index[index].why_busy

    def _replicas(self, params: ServerParams) -> list[PlannedServer]:
        needed = cards_needed(params, self._around.site)
        facts = self._around.facts.get(params.model, ModelFacts())
        shares = self._shares(params, needed)
        first = self._by_index.get(shares[0][0]) if shares[0] else None
        site_gib = self._around.site.card_memory_gib
        card_mib = first.total_mib if first and first.total_mib else int(site_gib * 1024) if site_gib else None
        why = why_not_fit(params, facts, card_mib=card_mib) if not params.simulated else ""
        if why:
            self._problems.append(f"{params.name}: {why}")
        names = [params.name] if params.replicas == 1 else [f"{params.name}-{i}" for i in range(params.replicas)]
        return [
            PlannedServer(name, self._one(params, number, share), facts)
            for number, (name, share) in enumerate(zip(names, shares, strict=True))
        ]

    def _one(self, params: ServerParams, number: int, cards: list[int]) -> ServerParams:
        port = self._port(params, number)
        return params.model_copy(
            update={"replicas": 1, "cards": cards, "port": port, "start_port": None, "end_port": None}
        )

    def _shares(self, params: ServerParams, needed: int) -> list[list[int]]:
        """Return the cards of each replica; empty ones when it needs none, or they are not known or not enough."""
        count = params.replicas
        nothing: list[list[int]] = [[] for _ in range(count)]
        if needed == 0:
            return nothing
        if params.cards:
            return self._as_written(params, needed) or nothing
        if not self._by_index and self._gpu_ids is None:
            return self._no_cards(params, needed, nothing)
        wanted, there = count * needed, len(self._free)
        if wanted > there:
            total = len(self._by_index)
            what = f"{count} x {needed} = {wanted} cards" if count > 1 else f"{needed} cards"
            short = f"the node has {total}" if self._around.known and wanted > total else f"{there} are left"
            self._problems.append(f"{params.name}: needs {what}, and {short}")
            return nothing
        taken, self._free = self._free[:wanted], self._free[wanted:]
        return [taken[i * needed : (i + 1) * needed] for i in range(count)]

    def _as_written(self, params: ServerParams, needed: int) -> list[list[int]]:
        cards = params.cards
        if len(cards) != params.replicas * needed:
            self._problems.append(
                f"{params.name}: {len(cards)} cards are written for {params.replicas} x {needed} that it takes"
            )
            return []
        unusable = [index for index in cards if not self._usable(index)]
        if unusable:
            return []
        return [cards[i * needed : (i + 1) * needed] for i in range(params.replicas)]

    def _no_cards(self, params: ServerParams, needed: int, nothing: list[list[int]]) -> list[list[int]]:
        if self._around.site.device in {"cuda", "gaudi"} and self._around.known:
            self._problems.append(f"{params.name}: needs {needed} cards, and this node has none that can be seen")
        elif needed > 1 or params.replicas > 1:
            self._notes.append(f"{params.name}: the node's cards are not known here, so none is assigned")
        return nothing

    def _port(self, params: ServerParams, number: int) -> int | None:
        if params.start_port is None:
            port = params.port
        elif params.end_port is None:
            port = params.start_port + number
        else:
            free = (port for port in range(params.start_port, params.end_port + 1) if port not in self._ports)
            port = next(free, None)
            if port is None:
                self._problems.append(f"{params.name}: no port of {params.start_port}-{params.end_port} is left")
        if port is None:
            return None
        if port > 65535:
            self._problems.append(f"{params.name}: port {port} does not exist")
        elif port in self._ports:
            self._problems.append(f"{params.name}: port {port} is taken")
        self._ports.add(port)
        return port


def plan_multi_node(servers: Sequence[ServerParams], around: NodeState) -> list[Layout]:
    """Return one layout for each node, of as few nodes as it takes when each server goes to the first that has room.

    Names and ports are those of a launch, where each server is a job of its own. One layout, with its problems, where
    one node is enough, more nodes would not help, or cards are written in a file: those are cards of one node.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start.
    around : Surroundings
        One node of the site; all are taken to be like it.
    """
    whole = plan_layout(servers, around)
    if not whole.problems or not around.cards or any(params.cards for params in servers):
        return [whole]
    anywhere = plan_layout(servers, replace(around, cards=(), known=False))
    if anywhere.problems:
        return [whole]
    nodes: list[list[ServerParams]] = []
    left: list[int] = []
    for place in anywhere.places:
        needed = cards_needed(place.params, around.site)
        number = next((number for number, free in enumerate(left) if needed <= free), len(nodes))
        if number == len(nodes):
            nodes.append([])
            left.append(len(around.cards))
        nodes[number].append(place.params.model_copy(update={"name": place.name}))
        left[number] -= needed
    return [plan_layout(node, around) for node in nodes] if len(nodes) > 1 else [whole]


def this_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path, *, force: bool) -> NodeState:
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
    cards = site_cards(site) if any(not params.simulated for params in servers) else []
    return NodeState(
        site,
        allowed_cards(cards),
        known=bool(cards) or site.device != "cuda",
        promised=promised_cards(registry) if cards else {},
        facts={params.model: model_facts(params.model, workspace=workspace) for params in servers},
        taken_ports=_taken_ports(servers, site, registry),
        force=force,
    )


def unknown_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path, *, force: bool) -> NodeState:
    """Return what is known of nodes that a scheduler will choose: nothing but the models.

    Parameters
    ----------
    servers, site, workspace, force
        As in `this_node_state`.
    """
    facts = {params.model: model_facts(params.model, workspace=workspace) for params in servers}
    return NodeState(site, known=False, facts=facts, force=force)


def site_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> NodeState:
    """Return what one node of the site has, by the site's file; its cards are taken as idle."""
    total_mib = int(site.card_memory_gib * 1024) if site.card_memory_gib else 0
    device: Device = "gaudi" if site.device == "gaudi" else "cuda"
    return NodeState(
        site,
        [Card(device, index, index, 0, total_mib) for index in range(site.cards_per_node or 0)],
        known=site.cards_per_node is not None,
        facts={params.model: model_facts(params.model, workspace=workspace) for params in servers},
    )


def _taken_ports(servers: Sequence[ServerParams], site: SiteParams, registry: Registry) -> set[int]:
    """Return which of the ports that the servers would get cannot be had; it ends where enough were found free."""
    promised = {urlsplit(record.base_url).port or 0 for record in registry.list() if record.on_this_host}
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
