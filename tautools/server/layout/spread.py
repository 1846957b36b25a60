"""Servers that one node cannot hold, laid out over several: a picture for people, for Slurm chooses the nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tautools.server.cards.guard import cards_needed
from tautools.server.layout.plan import Layout, plan_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.params.models import ServerParams
    from tautools.server.layout.plan import Surroundings

__all__ = ["plan_nodes"]


def plan_nodes(servers: Sequence[ServerParams], around: Surroundings) -> list[Layout]:
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
