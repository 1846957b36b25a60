"""Which cards a server may take: those asked for, or free ones; never one in use, unless it is forced.

On a shared node nothing keeps a process from a card that another one holds, so this is asked before every start. Inside
a Slurm job call `assign_cards` on the node, before vLLM starts; it returns the environment that shows vLLM its cards.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.server.cards.node import Card, CardDoor, Device, visible_to
from tautools.shell import group_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tautools.params.models import ServerParams, SiteParams
    from tautools.records import ServerRecord
    from tautools.server.registry import Registry

__all__ = ["allowed_cards", "assign_cards", "cards_needed", "promised_cards", "require_cards", "site_cards"]

_FORCE = "Take other cards, stop what holds them, or start with --force if you know better."


def cards_needed(params: ServerParams, site: SiteParams) -> int:
    """Return how many cards one replica takes; 0 when it takes none or the person has set the cards' variable."""
    env = site.env | params.env
    by_hand = {"CUDA_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES"} & env.keys()
    if params.engine != "vllm" or site.device == "cpu" or by_hand:
        return 0
    factors = [params.vllm.args.get(f"{kind}_parallel_size", 1) for kind in ("pipeline", "data")]
    needed = params.vllm.tensor_parallel_size
    for factor in factors:
        needed *= factor if isinstance(factor, int) else 1
    return needed


def site_cards(site: SiteParams, door: CardDoor | None = None) -> list[Card]:
    """Return the cards of this node as the site knows them; empty where there are none.

    Raises
    ------
    ServerError
        When the site has cards and they cannot be read. Where it names none, a broken program is no hindrance.
    """
    if site.device == "cpu":
        return []
    try:
        return (door or CardDoor(None if site.device == "none" else site.device)).read()
    except ServerError:
        if site.device == "none":
            return []
        raise


def allowed_cards(cards: Sequence[Card], environ: Mapping[str, str] | None = None) -> list[Card]:
    """Return the cards that this session or job may use, as its environment tells; all when it tells nothing.

    Notes
    -----
    Slurm counts cards as `hl-smi` does. With CUDA it shows a job its own cards only and numbers them anew, so there
    `CUDA_VISIBLE_DEVICES` is believed and `SLURM_JOB_GPUS` is not.
    """
    environ = os.environ if environ is None else environ
    if not cards:
        return []
    if cards[0].device == "cuda":
        named = _words(environ.get("CUDA_VISIBLE_DEVICES", ""))
        return [card for card in cards if not named or str(card.index) in named or _is_uuid(card, named)]
    modules = _words(environ.get("HABANA_VISIBLE_MODULES", ""))
    if modules and all(word.isdigit() for word in modules):
        return [card for card in cards if str(card.module) in modules]
    indices = _words(environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS") or "")
    return [card for card in cards if not indices or str(card.index) in indices]


def assign_cards(
    count: int, *, door: CardDoor | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Choose `count` idle cards of those that this job was given; for use on the node, before vLLM starts.

    Returns
    -------
    dict
        The variable that shows a process these cards, such as `{"HABANA_VISIBLE_MODULES": "2,6"}`.

    Raises
    ------
    ServerError
        When fewer are idle; the evidence names who holds the others, so that the job can be submitted again without
        this node.
    """
    cards = allowed_cards((door or CardDoor()).read(), environ)
    idle = [card for card in cards if card.idle]
    if len(idle) < count:
        raise ServerError(
            f"{count} cards are needed on {socket.gethostname()} and {len(idle)} of {len(cards)} are idle.",
            evidence="\n".join(f"card {card.index}: {card.why_busy}" for card in cards if not card.idle),
            next_step="See `tautools server cards` there; if others hold them, submit again without this node "
            f"(`--exclude={socket.gethostname()}`).",
        )
    return visible_to(idle[:count])


def promised_cards(registry: Registry) -> dict[int, str]:
    """Return the cards of this workspace's servers on this host, by index; one that starts shows no memory yet."""
    return {index: record.name for record in _running(registry.list()) for index in record.spec.get("cards") or ()}


def require_cards(
    params: ServerParams, site: SiteParams, registry: Registry, *, force: bool = False, door: CardDoor | None = None
) -> list[Card]:
    """Return the cards that the server asks for, each known to be free; an empty list when it asks for none.

    Parameters
    ----------
    params : ServerParams
        The server; `cards` are the indices it asks for.
    site : SiteParams
        Says which kind of cards the node has.
    registry : Registry
        The workspace's servers, whose cards are promised.
    force : bool
        Take cards that are in use.
    door : CardDoor, optional
        How cards are read; the site's program by default.

    Raises
    ------
    ServerError
        When one does not exist, is in use or promised, or nothing here can tell; `force` lets all but the first pass.
    """
    if not params.cards or params.engine != "vllm" or site.device == "cpu":
        return []
    cards = {card.index: card for card in site_cards(site, door)}
    if not cards:
        return _unseen(params, site, force=force)
    missing = [index for index in params.cards if index not in cards]
    if missing:
        raise ServerError(
            f"Server {params.name!r} asks for card {missing[0]}, which this node does not have.",
            evidence=f"It has: {', '.join(str(index) for index in cards)}.",
            next_step="Choose among those; `tautools server cards` lists them.",
        )
    promised = promised_cards(registry)
    reasons = [_why_not(cards[index], promised) for index in params.cards]
    told = [f"card {index}: {why}" for index, why in zip(params.cards, reasons, strict=True) if why]
    if told and not force:
        raise ServerError(
            f"Server {params.name!r} is not started: {len(told)} of its {len(params.cards)} cards are in use.",
            evidence="\n".join(told),
            next_step=_FORCE,
        )
    return [cards[index] for index in params.cards]


def _unseen(params: ServerParams, site: SiteParams, *, force: bool) -> list[Card]:
    """Return cards that cannot be looked at here: with CUDA the index is enough, elsewhere only when it is forced."""
    if site.device == "none" and force:
        return []
    if site.device == "cuda" or force:
        device: Device = "cuda" if site.device == "cuda" else "gaudi"
        return [Card(device, index, index, 0, 0) for index in params.cards]
    program = "hl-smi" if site.device == "gaudi" else "nvidia-smi or hl-smi"
    raise ServerError(
        f"Server {params.name!r} asks for cards, and {program} is not here to find them.",
        evidence=f"cards: {', '.join(str(index) for index in params.cards)}; device of site {site.name}: {site.device}",
        next_step="Start it on a node with cards, take `cards` out of its file, or use --force.",
    )


def _why_not(card: Card, promised: Mapping[int, str]) -> str:
    if card.index in promised:
        return f"it belongs to server {promised[card.index]!r}"
    return card.why_busy


def _running(records: Iterable[ServerRecord]) -> Iterable[ServerRecord]:
    for record in records:
        here = record.host in {"", socket.gethostname()} and record.how == "local" and record.spec.get("cards")
        if not here or record.pid is None or record.pid_started_at is None:
            continue
        if group_members(record.pid, record.pid_started_at):
            yield record


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",") if word.strip()}


def _is_uuid(card: Card, named: set[str]) -> bool:
    return any(card.uuid.startswith(word) for word in named if not word.isdigit())
