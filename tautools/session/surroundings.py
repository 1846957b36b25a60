"""What the doctor looks at: the environment, the site, the workspace, commands on PATH."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import ShellError
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.params.models import SiteParams

__all__ = ["Surroundings"]


@dataclass(frozen=True)
class Surroundings:
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
