"""What the doctor looks at and what it finds, printed, as HTML, as JSON, or as text that can be shared."""

from __future__ import annotations

import getpass
import html
import platform
import pwd
import re
import shutil
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools import __version__
from tautools.errors import ShellError
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.params.models import SiteParams


class FindingStatus(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """Some work will not go, or not well."""
    FAIL = "fail"
    """The work of this site cannot be done here as it is."""


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that was looked at."""

    name: str
    status: FindingStatus
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


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
        """Return the diagnosis as JSON data."""
        return {
            "site": self.site,
            "workspace": self.workspace,
            "worst": self.worst.value,
            "findings": [
                {"name": each.name, "status": each.status.value, "found": each.found, "remedy": each.remedy}
                for each in self.findings
            ],
        }

    def __str__(self) -> str:
        lines = []
        for each in self.findings:
            lines.append(f"{each.status.value:<5} {each.name:<13} {each.found}")
            if each.remedy:
                lines.append(f"{'':<20}-> {each.remedy}")
        counts = {status: sum(each.status is status for each in self.findings) for status in FindingStatus}
        total = ", ".join(f"{count} {status.value}" for status, count in counts.items())
        return "\n".join([*lines, f"{total}; site {self.site}, workspace {self.workspace}"])

    def _repr_html_(self) -> str:
        colours = {FindingStatus.OK: "#2e7d32", FindingStatus.WARN: "#b26a00", FindingStatus.FAIL: "#c62828"}
        rows = "".join(
            f'<tr><td style="color:{colours[each.status]};font-weight:600">{each.status.value}</td>'
            f"<td>{html.escape(each.name)}</td><td style='text-align:left'>{html.escape(each.found)}</td>"
            f"<td style='text-align:left'>{html.escape(each.remedy)}</td></tr>"
            for each in self.findings
        )
        head = "<tr><th></th><th>checked</th><th>found</th><th>remedy</th></tr>"
        place = html.escape(f"site {self.site}, workspace {self.workspace}")
        return f"<table><caption>{place}</caption>{head}{rows}</table>"


@dataclass(frozen=True)
class SessionContext:
    """One session, as it is seen from inside."""

    workspace: Path
    site: SiteParams
    environ: Mapping[str, str]
    sweeps: tuple[str, ...] = ()
    """Sweeps whose roles and servers are checked."""
    shell: Shell = field(default_factory=Shell)

    def which(self, command: str) -> str | None:
        """Return the path of a command on this session's PATH."""
        return shutil.which(command, path=self.environ.get("PATH", ""))

    def ask(self, argv: Sequence[str], *, timeout_s: float = 20.0) -> list[str]:
        """Return the lines that a command wrote; none when it failed."""
        try:
            done = self.shell.run(argv, timeout_s=timeout_s, env=self.environ)
        except ShellError:
            return []
        return [line for line in done.stdout.splitlines() if line.strip()] if done.exit_code == 0 else []

    def hide(self, text: str) -> str:
        """Return `text` without the values of secret variables and without passwords in addresses."""
        shown = str(without_secrets(text))
        for name, value in self.environ.items():
            if names_a_secret(name) and len(value) >= 6:
                shown = shown.replace(value, HIDDEN)
        return shown


_TOKEN = re.compile(r"\b(?:hf_|sk-|sk_|ghp_|gsk_|AIza)[A-Za-z0-9_-]{6,}")
_MAIL_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_USER_VARIABLES = ("USER", "LOGNAME", "SLURM_JOB_USER", "JUPYTERHUB_USER", "SUDO_USER")


def shareable_text(diagnosis: DoctorReport, environ: Mapping[str, str]) -> str:
    """Return a diagnosis as a block of text for other people's eyes.

    Parameters
    ----------
    diagnosis : Diagnosis
        What was found.
    environ : mapping
        The session's environment variables, whose secret values and user names are removed.
    """
    head = f"tautools {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    text = f"{head}, {time.strftime('%Y-%m-%d')}\n{diagnosis}"
    return f"```text\n{anonymise(text, environ)}\n```"


def anonymise(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` without secrets, mail addresses, home folders and the names of this user."""
    shown = str(without_secrets(text))
    for name, value in environ.items():
        if names_a_secret(name) and len(value) >= 4:
            shown = shown.replace(value, HIDDEN)
    shown = _MAIL_ADDRESS.sub("<mail>", _TOKEN.sub(HIDDEN, shown))
    for home in sorted(set(_home_folders(environ)), key=len, reverse=True):
        shown = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", shown)
    for user in sorted(set(_user_names(environ)), key=len, reverse=True):
        shown = re.sub(rf"(?<![A-Za-z0-9]){re.escape(user)}(?![A-Za-z0-9])", "<user>", shown, flags=re.IGNORECASE)
    return shown


def _home_folders(environ: Mapping[str, str]) -> Iterator[str]:
    for home in (environ.get("HOME", ""), str(Path.home())):
        if len(home) > 1:
            yield home.rstrip("/")


def _user_names(environ: Mapping[str, str]) -> Iterator[str]:
    names = [environ.get(name, "") for name in _USER_VARIABLES]
    try:
        names.append(getpass.getuser())
        # The full name, as the system knows it.
        names.append(pwd.getpwnam(names[-1]).pw_gecos.split(",")[0])
    except (KeyError, OSError):
        pass
    yield from (name for name in names if len(name) > 1)
