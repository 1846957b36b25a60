"""What the doctor looks at and what it finds, printed, as HTML, as JSON, or as text that can be shared."""

import contextlib
import getpass
import html
import json
import platform
import pwd
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from tautools import __version__
from tautools.errors import ShellError
from tautools.params.models import SiteParams
from tautools.redaction import HIDDEN, redacted
from tautools.shell import Completed, run_command


class FindingStatus(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """Some work will not go, or not well."""
    FAIL = "fail"
    """The work of this site cannot be done here as it is."""


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that was checked."""

    name: str
    status: FindingStatus
    found: str
    next_step: str = ""
    """What to do; empty when all is well."""


def good(name: str, found: str) -> DoctorFinding:
    """Return a finding that is fine."""
    return DoctorFinding(name, FindingStatus.OK, found)


def _judged(
    status: FindingStatus, name: str, problem: str, next_step: str, *, when: bool = True, fine: str = ""
) -> DoctorFinding:
    """Return a problem with its status; fine, with `fine` or else the same text, where there is none or not `when`."""
    return DoctorFinding(name, status, problem, next_step) if problem and when else good(name, fine or problem)


fails = partial(_judged, FindingStatus.FAIL)
"""Returns a finding that keeps the site's work from being done here."""
warns = partial(_judged, FindingStatus.WARN)
"""Returns a finding that keeps some work from being done, or done well."""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings of one look."""

    site: str
    workspace: str
    findings: tuple[DoctorFinding, ...]

    @property
    def worst(self) -> FindingStatus:
        """The worst status among the findings."""
        order = list(FindingStatus)
        return max((finding.status for finding in self.findings), key=order.index, default=FindingStatus.OK)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return asdict(self) | {"worst": self.worst}

    def shareable(self, environ: Mapping[str, str]) -> str:
        """Return a block of text for other people's eyes: without secrets, home folders and names of this user."""
        head = f"tautools {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        text = f"{head}, {time.strftime('%Y-%m-%d')}\n{self}"
        return f"```text\n{anonymise(text, environ)}\n```"

    def __str__(self) -> str:
        lines = []
        for each in self.findings:
            lines.append(f"{each.status.value:<5} {each.name:<13} {each.found}")
            if each.next_step:
                lines.append(f"{'':<20}-> {each.next_step}")
        counts = {status: sum(each.status is status for each in self.findings) for status in FindingStatus}
        total = ", ".join(f"{count} {status.value}" for status, count in counts.items())
        return "\n".join([*lines, f"{total}; site {self.site}, workspace {self.workspace}"])

    def _repr_html_(self) -> str:
        colours = {FindingStatus.OK: "#2e7d32", FindingStatus.WARN: "#b26a00", FindingStatus.FAIL: "#c62828"}
        rows = "".join(
            f'<tr><td style="color:{colours[each.status]};font-weight:600">{each.status.value}</td>'
            f"<td>{html.escape(each.name)}</td><td style='text-align:left'>{html.escape(each.found)}</td>"
            f"<td style='text-align:left'>{html.escape(each.next_step)}</td></tr>"
            for each in self.findings
        )
        head = "<tr><th></th><th>checked</th><th>found</th><th>next step</th></tr>"
        caption = html.escape(f"site {self.site}, workspace {self.workspace}")
        return f"<table><caption>{caption}</caption>{head}{rows}</table>"


class SiteEnvironment(NamedTuple):
    """The environment that the site's servers run in, as it is on this machine."""

    serve_command: str = ""
    """Path of the command that starts vLLM; empty when it is not there."""
    versions: Mapping[str, str] | None = None
    """Installed packages by name; None when it has no Python that could be asked."""
    problem: str = ""
    """Why it cannot be looked at here."""


_LIST_PACKAGES = (
    "import json; from importlib.metadata import distributions as d; "
    "print(json.dumps({str(p.metadata['Name']): p.version for p in d()}))"
)


@dataclass(frozen=True)
class SessionContext:
    """One session, as it is seen from inside."""

    workspace: Path
    site: SiteParams
    environ: Mapping[str, str]
    sweeps: tuple[str, ...] = ()
    """Sweeps whose roles and servers are checked."""

    def which(self, command: str) -> str | None:
        """Return the path of a command on this session's PATH."""
        return shutil.which(command, path=self.environ.get("PATH", ""))

    def run(self, argv: Sequence[str], *, timeout_s: float = 20.0) -> Completed | None:
        """Return what a command left; None when it cannot be started or does not end."""
        with contextlib.suppress(ShellError):
            return run_command(argv, timeout_s=timeout_s, env=self.environ)
        return None

    def ask(self, argv: Sequence[str]) -> list[str]:
        """Return the lines that a command wrote; none when it is not there or failed."""
        done = self.run(argv) if self.which(argv[0]) else None
        return [line for line in done.stdout.splitlines() if line.strip()] if done and done.exit_code == 0 else []

    @property
    def activation(self) -> list[str]:
        """The shell lines that load the site's modules and activate its environment."""
        return [*(f"module load {module}" for module in self.site.modules), *self.site.activate]

    @cached_property
    def site_environment(self) -> SiteEnvironment:
        """Where the site's servers would run on this machine: activated in a shell of its own, and asked."""
        command = str(Path(self.site.serve_command[0] if self.site.serve_command else "vllm").expanduser())
        if not self.activation:
            path = self.which(command)
            python = Path(path).resolve().parent / "python" if path and self.site.pins else None
            lines = self.ask([str(python), "-c", _LIST_PACKAGES]) if python and python.is_file() else []
            return SiteEnvironment(path or "", json.loads(lines[-1]) if lines else None)
        activate = [f"{line} || exit 3" for line in self.activation]
        script = "\n".join([*activate, f"command -v {shlex.quote(command)} || echo", 'exec python -c "$0"'])
        done = self.run(["bash", "-lc", script, _LIST_PACKAGES], timeout_s=60.0)
        path, brace, packages = done.stdout.rpartition("\n{") if done and done.exit_code != 3 else ("", "", "")
        if packages:
            return SiteEnvironment(path.strip().rpartition("\n")[2], json.loads(f"{brace}{packages}"))
        said = done.stderr.strip() or "it did not say why" if done else "bash cannot be run"
        problem = f"`{'; '.join(self.activation)}` fails here: {said.splitlines()[-1][:200]}"
        return SiteEnvironment(self.which(command) or "", None, problem)


_TOKEN = re.compile(r"\b(?:hf_|sk-|sk_|ghp_|gsk_|AIza)[A-Za-z0-9_-]{6,}")
_MAIL_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_USER_VARIABLES = ("USER", "LOGNAME", "SLURM_JOB_USER", "JUPYTERHUB_USER", "SUDO_USER")


def anonymise(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` without secrets, mail addresses, home folders and the names of this user."""
    shown = _MAIL_ADDRESS.sub("<mail>", _TOKEN.sub(HIDDEN, redacted(text, environ)))
    homes = {home.rstrip("/") for home in (environ.get("HOME", ""), str(Path.home())) if len(home) > 1}
    for home in sorted(homes, key=len, reverse=True):
        shown = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", shown)
    users = {environ.get(name, "") for name in _USER_VARIABLES}
    with contextlib.suppress(KeyError, OSError):
        users.add(getpass.getuser())
        users.add(pwd.getpwnam(getpass.getuser()).pw_gecos.split(",")[0])  # the full name, as the system knows it
    for user in sorted((user for user in users if len(user) > 1), key=len, reverse=True):
        shown = re.sub(rf"(?<![A-Za-z0-9]){re.escape(user)}(?![A-Za-z0-9])", "<user>", shown, flags=re.IGNORECASE)
    return shown
