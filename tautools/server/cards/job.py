"""Lines of a job script that give a server on a Gaudi node its cards, before the engine starts.

Slurm tells a job its cards by index; the engine wants module ids, which differ from node to node, and nothing keeps it
from a card that somebody else's process holds. The toolkit need not be installed where the job runs, so this is Python
of the standard library alone. CUDA jobs see their own cards only; where there is no `hl-smi` nothing is changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.server.cards.guard import cards_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["gres_for", "job_card_lines", "job_share_lines"]

_CHOOSE = r"""
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


def gres_for(site: SiteParams, needed: int) -> str | None:
    """Return what a job asks for: the site's cards, or as many of the kind as its servers take when that is more."""
    counted = re.fullmatch(r"(gpu(?::[\w.-]+)?:)(\d+)", site.gres or "")
    if counted is None:
        return site.gres
    return f"{counted[1]}{max(int(counted[2]), needed)}"


def job_card_lines(params: ServerParams, site: SiteParams) -> list[str]:
    """Return the lines; none for a server that takes no Gaudi card, or whose modules a person has set.

    The job ends there, with the reason in its log, when too few of its cards are idle.
    """
    needed = cards_needed(params, site)
    if site.device != "gaudi" or needed == 0:
        return []
    return _choose_modules(needed, ",".join(str(index) for index in params.cards))


def job_share_lines(
    needed: Sequence[int], site: SiteParams, errors: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the lines by which a job of several servers looks at its cards, and those that give each server its own.

    Parameters
    ----------
    needed : sequence of int
        How many cards each server takes, in the order of their start.
    site : SiteParams
        Whose device says by which variable a server sees its cards.
    errors : sequence of str
        Bash words for the servers' files of errors, where it is told too when the cards are in use.
    """
    variable = {"gaudi": "HABANA_VISIBLE_MODULES", "cuda": "CUDA_VISIBLE_DEVICES"}.get(site.device)
    if variable is None or not sum(needed):
        return [], [[] for _ in needed]
    # Looked at once, before the first server starts: afterwards its cards would no longer be idle.
    chosen = _choose_modules(sum(needed), "", f" 2> >(tee -a {' '.join(errors)} >&2)") if site.device == "gaudi" else []
    shares, first = [], 1
    for count in needed:
        part = f'"$(cut -d, -f{first}-{first + count - 1} <<< "${variable}")"'
        shares.append([f'[ -z "${{{variable}:-}}" ] || export {variable}={part}', ""] if count else [])
        first += count
    return chosen, shares


def _choose_modules(needed: int, asked: str, redirect: str = "") -> list[str]:
    return [
        "# The modules of this job's cards on this node, if they are idle",
        "if command -v hl-smi > /dev/null; then",
        f"HABANA_VISIBLE_MODULES=$(python3 - {needed} '{asked}'{redirect} <<'PYTHON'",
        _CHOOSE,
        "PYTHON",
        ") || exit 1",
        "export HABANA_VISIBLE_MODULES",
        "fi",
        "",
    ]
