"""Start a failed server again, with the change that its log asks for.

The change comes from the table of failures: the number that the log gave, a flag left out, a variable unset. It is
shown before and written into the new record, so that no result is made by a server that differs from its file unseen.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.errors import ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.server.local import launch
from tautools.server.overview import open_server
from tautools.server.registry import Registry
from tautools.server.state import cause_of, server_state
from tautools.server.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.server.failures.causes import Diagnosis
    from tautools.server.handle import Server

__all__ = ["Relaunch", "changed", "plan_relaunch", "relaunch"]

_FAILED = {State.FAILED, State.OUT_OF_MEMORY, State.TIMEOUT, State.PREEMPTED, State.NODE_FAIL}
"""States with a cause: the server did not end because it was asked to."""


@dataclass(frozen=True, slots=True)
class Relaunch:
    """What a relaunch would do."""

    record: ServerRecord
    params: ServerParams
    changes: list[str]
    """Each as `name: old -> new`; empty when nothing is changed."""
    diagnosis: Diagnosis | None
    """Why the former start failed; None when it did not."""


def plan_relaunch(name: str, *, workspace: Path, with_fix: bool) -> Relaunch:
    """Return what would be started, and why; nothing is stopped or started.

    Parameters
    ----------
    name : str
        A registered server.
    workspace : Path
        Where it is registered.
    with_fix : bool
        Whether to change what its log asks for.

    Raises
    ------
    ServerError
        When no server of that name is registered, or a fix is asked for and none is known.
    """
    registry = Registry(workspace)
    record = registry.get(name)
    state = server_state(record, workspace=workspace).state
    diagnosis = cause_of(record, registry) if state in _FAILED else None
    spec, changes = dict(record.spec), list[str]()
    if with_fix:
        if diagnosis is None:
            raise ServerError(
                f"Server {name!r} has not failed, so there is nothing to fix: it is {state.value}.",
                next_step=f"See how it is with `tautools server ls`; `tautools server relaunch {name}` starts it anew.",
            )
        spec, changes = changed(spec, diagnosis.fix)
        if not changes:
            raise ServerError(
                f"No change is known that would mend server {name!r} by itself: {diagnosis.cause}",
                evidence=diagnosis.evidence,
                next_step=diagnosis.remedy,
            )
    return Relaunch(record, ServerParams.model_validate(spec), changes, diagnosis)


def relaunch(plan: Relaunch, *, workspace: Path) -> Server:
    """Stop what is left of the former launch, start it as planned, and write down what was changed."""
    open_server(plan.record.name, workspace=workspace).stop()
    site = SiteParams.model_validate(plan.record.site) if plan.record.site else None
    server = launch(plan.params, workspace=workspace, site=site, name=plan.record.name)
    why = f" ({plan.diagnosis.cause})" if plan.diagnosis is not None else ""
    told = [*plan.record.changes, *(change + why for change in plan.changes)]
    if told:
        server.record = server.record.model_copy(update={"changes": told})
        Registry(workspace).add(server.record)
    return server


def changed(spec: Mapping[str, Any], fix: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a copy of the params with the fix applied, and each change in words.

    Parameters
    ----------
    spec : mapping
        Params of a server as a tree.
    fix : mapping
        New values by dotted name; None removes one.
    """
    tree, told = copy.deepcopy(dict(spec)), []
    for name, value in fix.items():
        *parents, last = name.split(".", 2)
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        old = place.get(last)
        if old == value:
            continue
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
        told.append(f"{name}: {_shown(old)} -> {_shown(value)}")
    return tree, told


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
