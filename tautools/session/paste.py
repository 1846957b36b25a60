"""A diagnosis as a text that can be pasted into a request for help: without secrets, user names and home folders."""

from __future__ import annotations

import getpass
import platform
import pwd
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tautools import __version__
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tautools.session.findings import Diagnosis

__all__ = ["paste_text", "without_names"]

_TOKENS = re.compile(r"\b(?:hf_|sk-|sk_|ghp_|gsk_|AIza)[A-Za-z0-9_-]{6,}")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_USER_VARIABLES = ("USER", "LOGNAME", "SLURM_JOB_USER", "JUPYTERHUB_USER", "SUDO_USER")


def paste_text(diagnosis: Diagnosis, environ: Mapping[str, str]) -> str:
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
    return f"```text\n{without_names(text, environ)}\n```"


def without_names(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` without secrets, mail addresses, home folders and the names of this user."""
    shown = str(without_secrets(text))
    for name, value in environ.items():
        if names_a_secret(name) and len(value) >= 4:
            shown = shown.replace(value, HIDDEN)
    shown = _MAIL.sub("<mail>", _TOKENS.sub(HIDDEN, shown))
    for home in sorted(set(_homes(environ)), key=len, reverse=True):
        shown = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", shown)
    for user in sorted(set(_users(environ)), key=len, reverse=True):
        shown = re.sub(rf"(?<![A-Za-z0-9]){re.escape(user)}(?![A-Za-z0-9])", "<user>", shown, flags=re.IGNORECASE)
    return shown


def _homes(environ: Mapping[str, str]) -> Iterator[str]:
    for home in (environ.get("HOME", ""), str(Path.home())):
        if len(home) > 1:
            yield home.rstrip("/")


def _users(environ: Mapping[str, str]) -> Iterator[str]:
    names = [environ.get(name, "") for name in _USER_VARIABLES]
    try:
        names.append(getpass.getuser())
        # The full name, as the system knows it.
        names.append(pwd.getpwnam(names[-1]).pw_gecos.split(",")[0])
    except (KeyError, OSError):
        pass
    yield from (name for name in names if len(name) > 1)
