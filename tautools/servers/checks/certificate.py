"""From a server's record to what is checked, and from finished checks to the certificate that is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import tautools
from tautools.params.secrets import HIDDEN, names_a_secret, without_secrets
from tautools.records import Certificate
from tautools.servers.checks.probes import requested_thinking
from tautools.servers.checks.run import CheckTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.records import ServerRecord
    from tautools.servers.checks.run import CheckContext


def target_of(record: ServerRecord, key: str, *, concurrency: int = 0) -> CheckTarget:
    """Return what must hold of a registered server.

    Parameters
    ----------
    record : ServerRecord
        The launch, or the attached server.
    key : str
        Its key.
    concurrency : int
        Chats at once that it must bear; 0 leaves the checks that load a server out.
    """
    engine = str(record.spec.get("engine", ""))
    asked = (record.spec.get(engine) or {}).get("max_model_len")
    return CheckTarget(
        record.base_url,
        record.model,
        key=key,
        alias=record.alias,
        max_model_len=asked,
        pid=record.pid,
        pid_started_at=record.pid_started_at,
        port=urlsplit(record.base_url).port if record.pid is not None else None,
        thinking=requested_thinking(record.spec),
        concurrency=concurrency,
    )


def certificate_of(name: str, done: CheckContext, record: ServerRecord | None = None) -> Certificate:
    """Return the certificate of a finished climb.

    Parameters
    ----------
    name : str
        What the server is called.
    done : Climb
        Every check with its finding.
    record : ServerRecord, optional
        Of a server of ours: its flags and variables are written down, without secrets.
    """
    length = done.models.length_of(done.model) if done.models is not None else None
    versions = {"tautools": tautools.__version__} | ({"server": done.version} if done.version else {})
    return Certificate(
        server=name,
        base_url=done.target.base_url,
        model=done.model,
        alias=done.target.alias,
        issued_at=time.time(),
        checks=done.checks,
        versions=versions,
        flags=public_flags(record.argv) if record else [],
        env=without_secrets(record.spec.get("env") or {}) if record else {},
        cards=record.cards if record else {},
        max_model_len=length,
        simulated=done.models is not None and done.models.simulated,
    )


def public_flags(argv: Sequence[str]) -> list[str]:
    """Return a command without the values of flags whose name is that of a secret."""
    shown: list[str] = []
    hide = False
    for word in argv:
        name, equals, _ = word.partition("=")
        flag = word.startswith("--") and names_a_secret(name.lstrip("-"))
        if flag and equals:
            shown.append(f"{name}={HIDDEN}")
        elif hide and not word.startswith("--"):
            shown.append(HIDDEN)
        else:
            shown.append(str(without_secrets(word)))
        hide = flag and not equals
    return shown
