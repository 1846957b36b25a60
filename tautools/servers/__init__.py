"""Servers: start them, verify that they are what they should be, find them again, stop them whole.

::

    from tautools.servers import launch
    server = launch(params, workspace=workspace).wait_ready()
    server.verify(); server.endpoint(); server.stop()

`launch` returns at once; `wait_ready` returns a server that has passed the checks (see `checks`). What is known of all
servers of a workspace is in its `Registry`; `endpoints` finds and checks the addresses for a role. Each name is loaded
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tautools.servers.addresses import as_base_url, endpoints
    from tautools.servers.attaching import attach, attach_all, verify_target
    from tautools.servers.diagnose import Diagnosis, diagnose_log
    from tautools.servers.metrics import server_states
    from tautools.servers.registry import Registry
    from tautools.servers.server import Server, open_server
    from tautools.servers.start import check_launch, launch, launch_all, launch_one_job
    from tautools.servers.state import Snapshot, State

_NAMES = {
    "attaching": "attach attach_all verify_target",
    "diagnose": "Diagnosis diagnose_log",
    "addresses": "as_base_url endpoints",
    "metrics": "server_states",
    "registry": "Registry",
    "server": "Server open_server",
    "start": "check_launch launch launch_all launch_one_job",
    "state": "Snapshot State",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
