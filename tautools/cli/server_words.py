"""How servers, rungs and certificates are told at a terminal and to programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tautools.records import Certificate, Rung, ServerRecord
    from tautools.server import Server

__all__ = ["age_of", "public", "show_certificate", "show_rung", "told", "variable"]

_MARKS = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("-", "bright_black")}


_PUBLIC = "name how engine model base_url host pid log_out log_err key_file simulated"


def public(record: ServerRecord) -> dict[str, Any]:
    """Return what a program may know of a server; where the key lies is told, the key is not."""
    return record.model_dump(mode="json", include=set(_PUBLIC.split()))


def told(server: Server) -> dict[str, Any]:
    """Return the same with the server's state now."""
    seen = server.state()
    return public(server.record) | {"state": seen.state.value, "detail": seen.detail}


def show_rung(rung: Rung) -> None:
    """Print one rung of the ladder."""
    word, colour = _MARKS[rung.passed]
    mark = click.style(f"{word:>6}", fg=colour)
    click.echo(f"{mark}  {rung.number} {rung.name:<14} {rung.took_s:6.2f} s  {rung.detail}")


def show_certificate(certificate: Certificate, *, as_json: bool) -> None:
    """Print the verdict, and exit with 1 when it is bad."""
    if as_json:
        click.echo(json.dumps(certificate.model_dump(mode="json") | {"passed": certificate.passed}, indent=1))
    else:
        mark = "SIMULATED " if certificate.simulated else ""
        verdict = "passed" if certificate.passed else "failed"
        click.secho(f"{mark}{certificate.model or certificate.base_url}: {verdict}", bold=True)
    if not certificate.passed:
        raise SystemExit(1)


def age_of(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def variable(name: str) -> str:
    """Return a server's name as the beginning of a shell variable's."""
    text = "".join(char if char.isalnum() and char.isascii() else "_" for char in name).upper()
    return f"_{text}" if text[0].isdigit() else text
