"""Which cards a server may take, and how they become free again.

Nothing on a shared node keeps a process from a card that another one uses, so cards are checked before every start: a
card in use is never taken unless that is forced. Inside a Slurm job the same check runs as a few lines of the job
script, because the toolkit need not be installed there. After a stop, a card's memory comes back late (on Gaudi up to
minutes), so the next start waits for it. Stale processes are listed first and stopped only when named again.
"""

import math
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from tautools.errors import ParamsError, ServerError, TautoolsError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.accelerators.probe import CARD_VARIABLES, Card, CardProcess, read_cards
from tautools.servers.registry import Registry, processes_of
from tautools.shell import stop_process

_CHOOSE_MODULES_SCRIPT = r"""
import os, socket, subprocess, sys
count, asked = int(sys.argv[1]), [word for word in sys.argv[2].split(",") if word]
query = ["hl-smi", "-Q", "index,module_id,memory.used", "-f", "csv,noheader,nounits"]
rows = [[cell.split()[0] for cell in line.split(",")] for line in subprocess.check_output(query, text=True).splitlines()
        if line.strip()]
given = (os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or "").split(",")
ours = asked or [word for word in given if word] or [index for index, _, _ in rows]
rows = [row for row in rows if row[0] in ours]
idle = [module for _, module, used in rows if float(used) <= 1536]
if len(idle) < count or (asked and len(idle) < len(rows)):
    held = ", ".join(f"card {index} ({used} MiB)" for index, _, used in rows if float(used) > 1536)
    if len(rows) < count:
        sys.exit(f"ERROR: {count} cards are needed and this job was given {len(rows)}; ask for more in the site's gres")
    sys.exit(f"ERROR: {count} idle cards are needed on {socket.gethostname()} and {len(idle)} of {len(rows)} are idle; "
             f"in use: {held or 'none'}. Stop what is yours there, or submit again with "
             f"--exclude={os.environ.get('SLURMD_NODENAME') or socket.gethostname()}")
print(",".join(idle[:count]))
""".strip()


RELEASE_TIMEOUT_S = 240.0
"""Most seconds to wait where no server file says otherwise; on Gaudi it takes up to minutes."""


def cards_needed(params: ServerParams, site: SiteParams) -> int:
    """Return how many cards one replica takes; 0 when it takes none or the person has set the cards' variable."""
    by_hand = set(CARD_VARIABLES.values()) & (site.env | params.env).keys()
    if params.simulated or site.device == "cpu" or by_hand:
        return 0
    factors = [params.vllm.args.get(f"{kind}_parallel_size", 1) for kind in ("pipeline", "data")]
    return params.vllm.tensor_parallel_size * math.prod(each for each in factors if isinstance(each, int))


def site_cards(site: SiteParams) -> list[Card]:
    """Return the cards of this node as the site knows them; where it names none, a broken program does no harm."""
    if site.device == "cpu":
        return []
    try:
        return read_cards(None if site.device == "none" else site.device)
    except ServerError:
        if site.device == "none":
            return []
        raise


def allowed_cards(cards: Sequence[Card], environ: Mapping[str, str] = os.environ) -> list[Card]:
    """Return the cards that this process may use by its environment; all when the environment names none.

    Slurm counts cards as `hl-smi` does. With CUDA it shows a job its own cards only and numbers them from 0, so there
    `CUDA_VISIBLE_DEVICES` counts and `SLURM_JOB_GPUS` does not.
    """
    if cards and cards[0].device == "cuda":
        named = _comma_words(environ.get("CUDA_VISIBLE_DEVICES"))
        uuids = tuple(word for word in named if not word.isdigit())
        return [card for card in cards if not named or str(card.index) in named or card.uuid.startswith(uuids)]
    modules = _comma_words(environ.get("HABANA_VISIBLE_MODULES"))
    if modules and all(word.isdigit() for word in modules):
        return [card for card in cards if str(card.module) in modules]
    indices = _comma_words(environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS"))
    return [card for card in cards if not indices or str(card.index) in indices]


def _comma_words(text: str | None) -> set[str]:
    return {word.strip() for word in (text or "").split(",") if word.strip()}


def assign_cards(count: int, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Choose `count` idle cards of those that this job was given; for use on the node, before vLLM starts.

    Returns
    -------
    dict
        The variable that shows a process these cards, such as `{"HABANA_VISIBLE_MODULES": "2,6"}`.

    Raises
    ------
    ServerError
        When fewer are idle; the evidence names who uses the others, so that the job can be submitted again without
        this node.
    """
    cards = allowed_cards(read_cards(), environ)
    idle = [card for card in cards if card.idle]
    if len(idle) < count:
        raise ServerError(
            f"{count} cards are needed on {socket.gethostname()} and {len(idle)} of {len(cards)} are idle.",
            evidence="\n".join(f"card {card.index}: {card.why_busy}" for card in cards if not card.idle),
            next_step="See `tautools server cards` there; if others use them, submit again without this node "
            f"(`--exclude={socket.gethostname()}`).",
        )
    return {CARD_VARIABLES[cards[0].device]: ",".join(str(card.module) for card in idle[:count])}


def promised_cards(registry: Registry) -> dict[int, str]:
    """Return the cards of this workspace's running servers on this host, by index, with the server's name.

    A server that is starting shows no memory on its card yet.
    """
    holders = [record for record in registry.list() if record.spec.get("cards") and processes_of(record)]
    return {card: record.name for record in holders for card in record.spec["cards"]}


def why_not_free(card: Card, promised: Mapping[int, str]) -> str:
    """Return why a card cannot be given out, which `promised_cards` may be too; empty for a free one."""
    return f"it belongs to server {promised[card.index]!r}" if card.index in promised else card.why_busy


def require_cards(params: ServerParams, site: SiteParams, registry: Registry, *, force: bool = False) -> list[Card]:
    """Return the cards that the server asks for by index, each known to be free; an empty list when it asks for none.

    It raises when one does not exist, is in use or promised, or cannot be checked; `force` allows all but the first.
    """
    if not params.cards or params.simulated or site.device == "cpu":
        return []
    cards = {card.index: card for card in site_cards(site)}
    if not cards:
        return _unreadable_cards(params, site, force=force)
    if missing := [index for index in params.cards if index not in cards]:
        raise ServerError(
            f"Server {params.name!r} asks for card {missing[0]}, which this node does not have.",
            evidence=f"It has: {', '.join(map(str, cards))}.",
            next_step="Choose among those; `tautools server cards` lists them.",
        )
    promised = promised_cards(registry)
    busy = [f"card {index}: {why}" for index in params.cards if (why := why_not_free(cards[index], promised))]
    if busy and not force:
        raise ServerError(
            f"Server {params.name!r} is not started: {len(busy)} of its {len(params.cards)} cards are in use.",
            evidence="\n".join(busy),
            next_step="Take other cards, stop what uses them, or start with --force if you know better.",
        )
    return [cards[index] for index in params.cards]


def _unreadable_cards(params: ServerParams, site: SiteParams, *, force: bool) -> list[Card]:
    """Return cards that cannot be read here: with CUDA the index is enough, elsewhere only when it is forced."""
    if site.device == "cuda" or (force and site.device == "gaudi"):
        return [Card(site.device, index, index, 0, 0) for index in params.cards]
    if force:
        return []
    program = "hl-smi" if site.device == "gaudi" else "nvidia-smi or hl-smi"
    raise ServerError(
        f"Server {params.name!r} asks for cards, and {program} is not here to find them.",
        evidence=f"cards: {', '.join(map(str, params.cards))}; device of site {site.name}: {site.device}",
        next_step="Start it on a node with cards, take `cards` out of its file, or use --force.",
    )


def gres_for(site: SiteParams, needed: int) -> str | None:
    """Return what a job asks for: the site's cards, or as many of the kind as its servers take when that is more."""
    match = re.fullmatch(r"(gpu(?::[\w.-]+)?:)(\d+)", site.gres or "")
    return f"{match[1]}{max(int(match[2]), needed)}" if match else site.gres


def job_card_lines(
    needed: int, site: SiteParams, *, asked: Sequence[int] = (), errors: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a job script that show its servers the job's Gaudi cards; none when they take none.

    Slurm tells a job its cards by index; the engine wants module ids, which differ from node to node. The job ends
    there when too few of its cards are idle, with the reason in its log and in the servers' error files (Bash words).
    """
    if site.device != "gaudi" or needed == 0:
        return []
    redirect = f" 2> >(tee -a {' '.join(errors)} >&2)" if errors else ""
    return [
        "# The modules of this job's cards on this node, if they are idle",
        "if command -v hl-smi > /dev/null; then",
        f"HABANA_VISIBLE_MODULES=$(python3 - {needed} '{','.join(map(str, asked))}'{redirect} <<'PYTHON'",
        _CHOOSE_MODULES_SCRIPT,
        "PYTHON",
        ") || exit 1",
        "export HABANA_VISIBLE_MODULES",
        "fi",
        "",
    ]


def job_card_shares(needed: Sequence[int], site: SiteParams) -> list[list[str]]:
    """Return, for each server of a job, the lines that leave it its own of the job's cards."""
    variable = CARD_VARIABLES.get(site.device)
    shares = []
    for last, count in zip(accumulate(needed), needed, strict=True):
        part = f'"$(cut -d, -f{last - count + 1}-{last} <<< "${variable}")"'
        lines = [f'[ -z "${{{variable}:-}}" ] || export {variable}={part}', ""]
        shares.append(lines if count and variable else [])
    return shares


def wait_released(
    indices: Collection[int], *, timeout_s: float = RELEASE_TIMEOUT_S, emit: Callable[[str], None]
) -> bool:
    """Wait until the memory of the cards is back at idle; return whether it is.

    Parameters
    ----------
    indices : collection of int
        The cards, by index.
    timeout_s : float
        Most seconds to wait. A process that is seen to use a card ends the wait for it: it will not be idle.
    emit : callable
        Called with what is waited for, when it changes, and with what is still in use at the end.
    """
    last: list[str] = []
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            busy = [card for card in read_cards() if card.index in indices and not card.idle]
        except TautoolsError as error:
            emit(f"the cards cannot be read: {error.problem}")
            return False
        if not busy:
            return True
        names = {card: f"card {card.index} ({card.used_mib} MiB)" for card in busy}
        unowned = [name for card, name in names.items() if not card.holders]
        if not unowned or time.monotonic() >= deadline:
            emit(f"not idle after the stop: {', '.join(names.values())}")
            return False
        if unowned != last:
            last = unowned
            emit(f"waiting until released: {', '.join(unowned)}")
        time.sleep(1.0)


def stale_processes(cards: Sequence[Card], registry: Registry) -> list[CardProcess]:
    """Return this user's processes on the cards that no registered server owns, each once, by pid."""
    ours = {os.getpid(), *(pid for record in registry.list() for pid in processes_of(record))}
    found = {holder.pid: holder for card in cards for holder in card.holders if holder.mine}
    return [found[pid] for pid in sorted(found.keys() - ours)]


def stop_stale(confirmed: Sequence[str], cards: Sequence[Card], registry: Registry) -> Iterator[CardProcess]:
    """Stop the confirmed processes, each alone, and yield each when it has ended.

    Parameters
    ----------
    confirmed : sequence of str
        `PID@START` of each, as `CardProcess.token` says.
    cards, registry
        What was read just now: a process that is not stale any more is not stopped.

    Raises
    ------
    ParamsError
        When one of them is not such a process now; none is stopped then.
    ShellError
        When a process does not end.
    """
    stale = {holder.token: holder for holder in stale_processes(cards, registry)}
    if unknown := [token for token in confirmed if token not in stale]:
        raise ParamsError(
            f"{unknown[0]!r} is not a stale process of yours on a card; nothing was stopped.",
            evidence=f"There are: {', '.join(stale)}." if stale else "There is none now.",
            next_step="Run `tautools server cards --stop-stale` again and confirm what it names.",
        )
    for token in dict.fromkeys(confirmed):
        stop_process(stale[token].pid, stale[token].started_at)
        yield stale[token]
