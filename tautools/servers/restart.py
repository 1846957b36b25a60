"""Start a server again: as it was, with the fix that its log asks for, or away from a node whose cards are held.

A fix is shown before and written into the new record, so that no result is made by a server that differs from its file
unseen.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tautools.errors import ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.backends import backend_of, require_fit
from tautools.servers.registry import Registry
from tautools.servers.server import Server, open_server
from tautools.servers.start import launch
from tautools.servers.state import log_lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.servers.diagnose import Diagnosis

_HELD_CARDS = re.compile(r"ERROR: \d+ idle cards are needed on .* submit again with --exclude=(\S+)")
"""What the job itself says before the engine starts; see `accelerators.assignment`."""
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\],-]*")


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart would do."""

    record: ServerRecord
    params: ServerParams
    changes: list[str]
    """Each as `name: old -> new`; empty when nothing is changed."""
    diagnosis: Diagnosis | None
    """Why the former start failed; None when it did not."""


def plan_restart(name: str, *, workspace: Path, fix: bool) -> Restart:
    """Return what would be started, and why; nothing is stopped or started.

    Parameters
    ----------
    name : str
        A registered server.
    workspace : Path
        Where it is registered.
    fix : bool
        Whether to change what its log asks for.

    Raises
    ------
    ServerError
        When no server of that name is registered, it is attached, or a fix is asked for and none is known.
    """
    server = open_server(name, workspace=workspace)
    record = server.record
    require_fit(record, "restart")
    state = server.state().state
    diagnosis = server.cause() if state.failed else None
    spec, changes = dict(record.spec), list[str]()
    if fix:
        if diagnosis is None:
            raise ServerError(
                f"Server {name!r} has not failed, so there is nothing to fix: it is {state.value}.",
                next_step=f"Look with `tautools server ls`; `tautools server restart {name}` starts it again as it is.",
            )
        spec, changes = apply_fix(spec, diagnosis.changes)
        if not changes:
            raise ServerError(
                f"No automatic fix is known for server {name!r}: {diagnosis.cause}",
                evidence=diagnosis.evidence,
                next_step=diagnosis.fix,
            )
    return Restart(record, ServerParams.model_validate(spec), changes, diagnosis)


def restart(plan: Restart, *, workspace: Path) -> Server:
    """Stop what is left of the former launch, start it as planned, and write down what was changed."""
    open_server(plan.record.name, workspace=workspace).stop()
    site = SiteParams.model_validate(plan.record.site) if plan.record.site else None
    server = launch(plan.params, workspace=workspace, site=site, name=plan.record.name)
    cause = f" ({plan.diagnosis.cause})" if plan.diagnosis is not None else ""
    changes = [*plan.record.changes, *(change + cause for change in plan.changes)]
    if changes:
        server.record = server.record.model_copy(update={"changes": changes})
        Registry(workspace).add(server.record)
    return server


def apply_fix(spec: Mapping[str, Any], fix: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a copy of the params with the fix applied, and each change in words.

    Parameters
    ----------
    spec : mapping
        Params of a server as a tree.
    fix : mapping
        New values by dotted name; None removes one.
    """
    tree, changes = copy.deepcopy(dict(spec)), []
    for name, value in fix.items():
        *parents, last = name.split(".", 2)
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        old = branch.get(last)
        if old == value:
            continue
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        shown = ["not set" if each is None else json.dumps(each, ensure_ascii=False) for each in (old, value)]
        changes.append(f"{name}: {' -> '.join(shown)}")
    return tree, changes


def held_node(record: ServerRecord) -> str | None:
    """Return the node whose cards were held by others, by the job's log; None when it names none."""
    nodes = [match[1] for line in log_lines(record) if (match := _HELD_CARDS.search(line))]
    return nodes[-1] if nodes and backend_of(record).by_scheduler else None


def exclude_node(plan: Restart, node: str = "") -> Restart:
    """Return the restart with a node left out, together with those that were left out before.

    Parameters
    ----------
    plan : Restart
        Of a server that is a job of Slurm.
    node : str
        A node, or several as Slurm writes them; empty: the one whose cards were held, by the failed job's log.

    Raises
    ------
    ServerError
        When the server is no job, or its log names no node and none is given, or it cannot be a node's name.
    """
    record = plan.record
    if not backend_of(record).by_scheduler:
        raise ServerError(
            f"Server {record.name!r} is no job of Slurm, so it has no node to leave out.",
            next_step=f"Start it again with `tautools server restart {record.name}`.",
        )
    node = node or held_node(record) or ""
    if not _NODE_NAME.fullmatch(node):
        raise ServerError(
            f"{node!r} cannot be the name of a node."
            if node
            else f"The log of server {record.name!r} names no node whose cards are held.",
            next_step=f"Name it: `tautools server restart {record.name} --exclude NODE`.",
        )
    old = SiteParams.model_validate(record.site).exclude
    if node in old:
        return plan
    new = [*old, node]
    change = f"site.exclude: {','.join(old) or 'not set'} -> {','.join(new)}"
    without = record.model_copy(update={"site": dict(record.site) | {"exclude": new}})
    return replace(plan, record=without, changes=[*plan.changes, change])


def resubmit(record: ServerRecord, node: str, *, workspace: Path) -> Server:
    """Submit a server again whose job ended on a node with held cards, with that node left out."""
    plan = Restart(record, ServerParams.model_validate(record.spec), [], None)
    return restart(exclude_node(plan, node), workspace=workspace)
