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
    from tautools.params.models import ServerParams, SiteParams

__all__ = ["gres_for", "job_card_lines"]

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


def gres_for(params: ServerParams, site: SiteParams) -> str | None:
    """Return what a job asks for: the site's cards, or as many of the kind as the server takes when that is more."""
    counted = re.fullmatch(r"(gpu(?::[\w.-]+)?:)(\d+)", site.gres or "")
    if counted is None:
        return site.gres
    return f"{counted[1]}{max(int(counted[2]), cards_needed(params, site))}"


def job_card_lines(params: ServerParams, site: SiteParams) -> list[str]:
    """Return the lines; none for a server that takes no Gaudi card, or whose modules a person has set.

    The job ends there, with the reason in its log, when too few of its cards are idle.
    """
    needed = cards_needed(params, site)
    if site.device != "gaudi" or needed == 0:
        return []
    asked = ",".join(str(index) for index in params.cards)
    return [
        "# The modules of this job's cards on this node, if they are idle",
        "if command -v hl-smi > /dev/null; then",
        f"HABANA_VISIBLE_MODULES=$(python3 - {needed} '{asked}' <<'PYTHON'",
        _CHOOSE,
        "PYTHON",
        ") || exit 1",
        "export HABANA_VISIBLE_MODULES",
        "fi",
        "",
    ]
