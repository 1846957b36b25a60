"""Lines of a job script that keep the compiled graphs of a Gaudi server: most of a start, when they are there already.

They belong to exact versions of the software, to a number of cards and to a number format, so the folder is named by
those; which versions a job has is known only in its environment. The folder lies on the node's own disk, because the
locks of a shared one fail; a site may name a shared folder that graphs are brought from and taken to.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from tautools.server.cards.guard import cards_needed
from tautools.server.vllm.profiles import RECIPES_MB, RECIPES_VARIABLE, own_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["recipe_lines"]

_SOFTWARE = r"""
import importlib.metadata as installed, re
found = []
for name in ("habana_torch_plugin", "vllm", "vllm_gaudi"):
    try:
        found.append(re.sub(r"[^A-Za-z0-9._+-]", "_", installed.version(name)))
    except installed.PackageNotFoundError:
        if name == "vllm":
            raise SystemExit
print("-".join(found))
""".strip()


def recipe_lines(params: ServerParams, site: SiteParams, env: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the lines before and after a server of a Gaudi site; none for others, or where a person has chosen.

    Parameters
    ----------
    params, site : ServerParams, SiteParams
        What is served, and where.
    env : mapping
        The variables that the script sets by itself.
    """
    if site.device != "gaudi" or cards_needed(params, site) == 0 or RECIPES_VARIABLE in env:
        return [], []
    kind = f"tp{params.vllm.tensor_parallel_size}-{re.sub(r'[^A-Za-z0-9._+-]', '_', params.vllm.dtype or 'auto')}"
    folder = f'{shlex.quote(f"{own_folder(site)}/recipes")}/"$software"-{kind}'
    before = [
        "# Compiled graphs of this very software, on the node's own disk",
        "software=$(python3 - <<'PYTHON'",
        _SOFTWARE,
        "PYTHON",
        ")",
        'if [ -n "$software" ]; then',
        f"recipes={folder}",
        'mkdir -p -- "$recipes"',
        f'export {RECIPES_VARIABLE}="$recipes,false,{RECIPES_MB}"',
    ]
    after = []
    if site.recipe_store is not None:
        store = f'{shlex.quote(site.recipe_store)}/"${{recipes##*/}}"'
        before.append(f'cp -r -n -- {store}/. "$recipes"/ 2> /dev/null')
        after = [
            'if [ -n "$software" ]; then',
            f'mkdir -p -- {store} && cp -r -n -- "$recipes"/. {store}/',
            "fi",
        ]
    return [*before, "fi", ""], after
