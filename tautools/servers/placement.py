"""Which server gets which cards and which port, planned as a whole before anything is started.

`plan_layout` is arithmetic over a `NodeState`; the functions that return one ask this machine or read a site's file.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tautools.errors import ParamsError, ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.accelerators.assignment import (
    allowed_cards,
    cards_needed,
    promised_cards,
    site_cards,
    why_not_free,
)
from tautools.servers.accelerators.probe import Card, Device
from tautools.servers.model_cache import ModelFacts, model_facts, why_not_fit
from tautools.servers.ports import is_free
from tautools.servers.registry import Registry


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A server that is to be started: one of a plan, or one that was asked for alone."""

    params: ServerParams
    """As it will be launched; of a plan: one replica, with its own cards and port."""
    site: SiteParams
    name: str
    """In the registry; `params.name`, or a replica's."""
    force: bool = False
    """Whether cards in use may be taken."""
    facts: ModelFacts = field(default_factory=ModelFacts)


@dataclass(frozen=True, slots=True)
class Layout:
    """Servers in the order of their start, and why they cannot be started like that."""

    places: list[LaunchRequest]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require(self) -> list[LaunchRequest]:
        """Return the servers when they can be started; a ServerError says everything that is wrong."""
        if self.problems:
            raise ServerError(
                f"These servers cannot be started like that: {len(self.problems)} "
                f"{'problem' if len(self.problems) == 1 else 'problems'}.",
                evidence="\n".join(self.problems),
                next_step="Change replicas, cards or ports; `tautools server plan NAME...` shows the layout.",
            )
        return self.places

    def require_job(self) -> list[LaunchRequest]:
        """Return the servers of one job: without cards, because the plan's numbers are those of no node yet."""
        return [replace(each, params=each.params.model_copy(update={"cards": []})) for each in self.require()]


def apply_layout_options(
    servers: Sequence[ServerParams],
    *,
    replicas: Mapping[str, int] | None = None,
    start_port: int | None = None,
    stagger: float | Literal["loaded"] | None = None,
) -> list[ServerParams]:
    """Return the servers with the options of the command line in place of what their files say.

    `replicas` are numbers by name. `start_port` is the port of the first replica of the first server; all others follow
    without a gap. `stagger` says when each next one is started. A ParamsError is raised where they do not fit.
    """
    unknown = sorted((replicas or {}).keys() - {params.name for params in servers})
    if unknown:
        raise ParamsError(
            f"Replicas are asked for {unknown[0]!r}, which is not among the servers.",
            evidence=f"The servers: {', '.join(params.name for params in servers)}.",
            next_step="Write `--replicas NAME=N` with one of these names, or a bare number for all.",
        )
    changed = []
    for params in servers:
        count = (replicas or {}).get(params.name, params.replicas)
        update: dict[str, object] = {"replicas": count} | ({} if stagger is None else {"stagger": stagger})
        if start_port is not None:
            update |= {"port": None, "start_port": start_port, "end_port": None}
            start_port += count
        try:  # checked as a file would be: a port and replicas may not agree
            changed.append(ServerParams.model_validate(params.model_dump() | update))
        except ValidationError as error:
            raise ParamsError(
                f"Server {params.name!r} cannot be started like that: {error.errors()[0]['msg']}.",
                next_step="Leave out `port` in its file, or give --start-port.",
            ) from error
    return changed


@dataclass(frozen=True, slots=True)
class NodeState:
    """The node that a plan is for."""

    site: SiteParams
    cards: Sequence[Card] = ()
    """The node's cards that may be used; none where they are not known."""
    known: bool = True
    """Whether `cards` is all there is; False for a node that cannot be read."""
    promised: Mapping[int, str] = field(default_factory=dict)
    """Cards of running servers, with the server's name."""
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    """By model."""
    port_is_free: Callable[[int], bool] = lambda _port: True
    """Whether nobody else has a port that a file or an option gives out by its `start_port`."""
    force: bool = False
    """Whether cards in use may be given out when they are asked for."""


def plan_layout(servers: Sequence[ServerParams], node: NodeState, *, gpu_ids: Sequence[int] | None = None) -> Layout:
    """Give each replica of each server its name, cards and port; the servers come in the order of their start.

    With `gpu_ids` only these cards are given out, in this order, not those written in the files or every idle one.
    """
    if gpu_ids is not None:
        servers = [params.model_copy(update={"cards": []}) for params in servers]
    return _LayoutPlanner(servers, node, gpu_ids).plan()


class _LayoutPlanner:
    def __init__(self, servers: Sequence[ServerParams], node: NodeState, gpu_ids: Sequence[int] | None) -> None:
        self._servers = servers
        self._node = node
        self._gpu_ids = gpu_ids
        self._cards = {card.index: card for card in node.cards}
        self._busy = {index: why for index, card in self._cards.items() if (why := why_not_free(card, node.promised))}
        self._ports: set[int] = set()
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._free = self._free_cards()

    def plan(self) -> Layout:
        places = [place for params in self._servers for place in self._replicas(params)]
        names = Counter(place.name for place in places)
        self._problems += [f"{name}: {count} servers of that name" for name, count in names.items() if count > 1]
        for index, count in Counter(index for place in places for index in place.params.cards).items():
            if count > 1:
                holders = ", ".join(place.name for place in places if index in place.params.cards)
                self._problems.append(f"card {index} is given to {holders}; a card serves one server")
        return Layout(places, self._problems, self._notes)

    def _free_cards(self) -> list[int]:
        """Return the cards to give out, in the order in which they go."""
        if self._gpu_ids is not None:
            counts = Counter(self._gpu_ids).items()
            self._problems += [f"card {index} is named {count} times" for index, count in counts if count > 1]
            return [index for index in dict.fromkeys(self._gpu_ids) if self._usable(index)]
        by_hand = {index for params in self._servers for index in params.cards}
        taken = by_hand if self._node.force else by_hand | self._busy.keys()
        return [index for index in sorted(self._cards, key=self._busy.__contains__) if index not in taken]

    def _usable(self, index: int) -> bool:
        """Whether a card that a person named may be given out; a problem is noted when not."""
        if not self._cards and not self._node.known:
            return True
        if index not in self._cards:
            cards = ", ".join(map(str, self._cards)) or "none"
            self._problems.append(f"card {index} is not among the cards of this node ({cards})")
            return False
        if index in self._busy and not self._node.force:
            self._problems.append(f"card {index} is in use: {self._busy[index]}")
            return False
        return True

    def _replicas(self, params: ServerParams) -> list[LaunchRequest]:
        facts = self._node.facts.get(params.model, ModelFacts())
        shares = self._shares(params, 0 if params.simulated else cards_needed(params, self._node.site))
        first = self._cards.get(shares[0][0]) if shares[0] else None
        card_mib = (first.total_mib if first else 0) or int((self._node.site.card_memory_gib or 0) * 1024) or None
        if not params.simulated and (why := why_not_fit(params, facts, card_mib=card_mib)):
            self._problems.append(f"{params.name}: {why}")
        planned = []
        for number, cards in enumerate(shares):
            name = params.name if params.replicas == 1 else f"{params.name}-{number}"
            own = {"cards": cards, "port": self._port(params, number), "start_port": None, "end_port": None}
            own_params = params.model_copy(update=own | {"replicas": 1})
            planned.append(LaunchRequest(own_params, self._node.site, name, self._node.force, facts))
        return planned

    def _shares(self, params: ServerParams, needed: int) -> list[list[int]]:
        """Return the cards of each replica; empty ones when it needs none, or they are not known or not enough."""
        count, wanted = params.replicas, params.replicas * needed
        cards: list[int] = []
        if params.cards and needed:
            if len(params.cards) != wanted:
                written = f"{len(params.cards)} cards are written for {count} x {needed} that it takes"
                self._problems.append(f"{params.name}: {written}")
            elif False not in [self._usable(index) for index in params.cards]:
                cards = params.cards
        elif not self._cards and self._gpu_ids is None:
            if needed and self._node.site.device in {"cuda", "gaudi"} and self._node.known:
                self._problems.append(f"{params.name}: needs {needed} cards, and this node has none that can be seen")
            elif wanted > 1:
                self._notes.append(f"{params.name}: the node's cards are not known here, so none is assigned")
        elif wanted > len(self._free):
            what = f"{count} x {needed} = {wanted} cards" if count > 1 else f"{needed} cards"
            lacks_all = self._node.known and wanted > len(self._cards)
            room = f"the node has {len(self._cards)}" if lacks_all else f"{len(self._free)} are left"
            self._problems.append(f"{params.name}: needs {what}, and {room}")
        else:
            cards, self._free = self._free[:wanted], self._free[wanted:]
        return [cards[number * needed : (number + 1) * needed] for number in range(count)]

    def _port(self, params: ServerParams, number: int) -> int | None:
        """Return the port of a replica: the written one, the next of the row, or the first free one of the range."""
        first, last = params.start_port, params.end_port
        if first is not None and last is not None:
            port = next((port for port in range(first, last + 1) if not self._port_taken(port)), None)
            if port is None:
                self._problems.append(f"{params.name}: no port of {first}-{last} is left")
                return None
        else:
            port = params.port if first is None else first + number
        if port is None:
            return None
        taken = port in self._ports if first is None else self._port_taken(port)
        if port > 65535 or taken:
            wrong = "does not exist" if port > 65535 else "is taken"
            self._problems.append(f"{params.name}: port {port} {wrong}")
        self._ports.add(port)
        return port

    def _port_taken(self, port: int) -> bool:
        return port in self._ports or (port <= 65535 and not self._node.port_is_free(port))


def plan_launch(
    servers: Sequence[ServerParams],
    *,
    workspace: Path,
    site: SiteParams | None = None,
    gpu_ids: Sequence[int] | None = None,
    force: bool = False,
) -> Layout:
    """Plan the servers on this machine as it is now; nothing is started, and what is wrong is in the layout.

    For a Slurm site each replica is a job of its own, which gets its cards on the node. Parameters are those of
    `launch_all`.
    """
    site = site if site is not None else SiteParams(name="local")
    node = (
        unknown_node_state(servers, site, workspace)
        if site.uses_slurm
        else this_node_state(servers, site, workspace, force=force)
    )
    return plan_layout(servers, node, gpu_ids=gpu_ids)


def plan_one_job(servers: Sequence[ServerParams], *, workspace: Path, site: SiteParams) -> Layout:
    """Plan the servers on one node of a Slurm site, for one job; nothing is started.

    The site's `cards_per_node` says what a node has. The cards are numbered from 0 as if the whole node were the job's;
    on the node the job gives out, in the same order, the ones that it was given. A ParamsError is raised when the site
    has no Slurm, or cards are chosen by hand.
    """
    if not site.uses_slurm:
        raise ParamsError(
            f"Servers of site {site.name!r} start as processes of this machine, so there is no job for them to share.",
            next_step="Leave --one-job out, or name a site with Slurm.",
        )
    if by_hand := [params.name for params in servers if params.cards]:
        raise ParamsError(
            f"Server {by_hand[0]!r} names its cards, and Slurm chooses those of a job.",
            next_step="Leave `cards` out of its file.",
        )
    return plan_layout(servers, site_node_state(servers, site, workspace))


def plan_multi_node(servers: Sequence[ServerParams], node: NodeState) -> list[Layout]:
    """Return one layout for each node, of as few nodes as it takes when each server goes to the first that has room.

    Names and ports are those of a launch, where each server is a job of its own. One layout, with its problems, where
    one node is enough, more nodes would not help, or cards are written in a file: those are cards of one node. All
    nodes are assumed to be like `node`.
    """
    whole = plan_layout(servers, node)
    if not whole.problems or not node.cards or any(params.cards for params in servers):
        return [whole]
    anywhere = plan_layout(servers, replace(node, cards=(), known=False))
    if anywhere.problems:
        return [whole]
    nodes: list[list[ServerParams]] = []
    left: list[int] = []
    for place in anywhere.places:
        needed = cards_needed(place.params, node.site)
        number = next((number for number, free in enumerate(left) if needed <= free), len(nodes))
        if number == len(nodes):
            nodes.append([])
            left.append(len(node.cards))
        nodes[number].append(place.params.model_copy(update={"name": place.name}))
        left[number] -= needed
    return [plan_layout(each, node) for each in nodes] if len(nodes) > 1 else [whole]


def this_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path, *, force: bool) -> NodeState:
    """Return the state of this node: cards with their processes, promised cards, free ports, models on disk.

    A ServerError is raised when the site has cards and they cannot be read.
    """
    registry = Registry(workspace)
    # Simulated servers need no card, and asking for them takes seconds on a busy node.
    cards = site_cards(site) if any(not params.simulated for params in servers) else []
    return NodeState(
        site,
        allowed_cards(cards) if cards else [],
        known=bool(cards) or site.device != "cuda",
        promised=promised_cards(registry) if cards else {},
        facts=_facts(servers, workspace),
        port_is_free=partial(is_free, site.host, avoid=registry.ports()),
        force=force,
    )


def unknown_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> NodeState:
    """Return what is known of nodes that a scheduler will choose: nothing but the models."""
    return NodeState(site, known=False, facts=_facts(servers, workspace))


def site_node_state(servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> NodeState:
    """Return what one node of the site has by the site's file; its cards count as idle."""
    total_mib = int((site.card_memory_gib or 0) * 1024)
    device: Device = "gaudi" if site.device == "gaudi" else "cuda"
    cards = [Card(device, index, index, 0, total_mib) for index in range(site.cards_per_node or 0)]
    return NodeState(site, cards, known=site.cards_per_node is not None, facts=_facts(servers, workspace))


def _facts(servers: Sequence[ServerParams], workspace: Path) -> dict[str, ModelFacts]:
    models = {params.model for params in servers if not params.simulated}
    return {model: model_facts(model, workspace=workspace) for model in models}
