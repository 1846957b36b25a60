"""The session: a workspace to work in, and whether this session can do the work.

`init` writes a workspace from a site and never overwrites; `doctor` looks and changes nothing.
"""

from __future__ import annotations

from tautools.session.agent_project import AgentProject, recognise
from tautools.session.doctor import doctor
from tautools.session.findings import Diagnosis, Finding, Status
from tautools.session.init import InitPlan, Made, plan_init, write_workspace

__all__ = [
    "AgentProject",
    "Diagnosis",
    "Finding",
    "InitPlan",
    "Made",
    "Status",
    "doctor",
    "plan_init",
    "recognise",
    "write_workspace",
]
