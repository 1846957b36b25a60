"""Servers: start them, prove that they are what they should be, find them again, stop them whole.

::

    from tautools.server import launch
    server = launch(params, workspace=workspace).wait_ready()
    server.verify(); server.endpoint(); server.stop()

`launch` returns at once; `wait_ready` returns a server that has passed the ladder (see `ladder`). What is known of all
servers of a workspace is in its `Registry`; `endpoints` finds and checks the addresses for a role.
"""

from __future__ import annotations

from tautools.server.address import as_base_url, verify_target, verify_url
from tautools.server.attach import attach, attach_all
from tautools.server.failures.causes import Diagnosis, diagnose
from tautools.server.handle import Server
from tautools.server.layout.fleet import launch_all, launch_one_job
from tautools.server.local import check_launch, launch
from tautools.server.overview import open_server, server_states
from tautools.server.registry import Registry
from tautools.server.roles import endpoints
from tautools.server.state import server_state
from tautools.server.states import Snapshot, State

__all__ = [
    "Diagnosis",
    "Registry",
    "Server",
    "Snapshot",
    "State",
    "as_base_url",
    "attach",
    "attach_all",
    "check_launch",
    "diagnose",
    "endpoints",
    "launch",
    "launch_all",
    "launch_one_job",
    "open_server",
    "server_state",
    "server_states",
    "verify_target",
    "verify_url",
]
