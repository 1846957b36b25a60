"""The session: a workspace to work in, and whether this session can do the work.

`init` writes a workspace from a site and never overwrites; `doctor` looks and changes nothing.
"""

from tautools.session.doctor import doctor
from tautools.session.findings import DoctorFinding, DoctorReport, FindingStatus
from tautools.session.init import InitPlan, find_agent_project, plan_init, write_workspace
