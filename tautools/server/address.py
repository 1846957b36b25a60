"""Prove any address, whoever started the server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.errors import ParamsError
from tautools.server.proof.certificate import certificate_of
from tautools.server.proof.ladder import Target, climb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.records import Certificate, Rung

__all__ = ["as_base_url", "verify_target", "verify_url"]


def as_base_url(url: str) -> str:
    """Return `url` as an address that ends in `/v1`; a bare host and port get it added.

    Raises
    ------
    ParamsError
        When it is not an http address.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParamsError(
            f"{url!r} is not the address of a server.",
            next_step="Give it as http://HOST:PORT/v1, as the server prints it.",
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def verify_url(
    base_url: str,
    *,
    model: str | None = None,
    key: str = "",
    alias: str = "",
    on_rung: Callable[[Rung], None] | None = None,
) -> Certificate:
    """Climb the ladder at any OpenAI-compatible address and return the certificate.

    Parameters
    ----------
    base_url : str
        Such as `http://gaudi001:8007/v1`.
    model : str, optional
        The name that must be served; the first one the server tells by default.
    key : str
        Its key, when it has one. Without a key the rung that tests it does not apply.
    alias : str
        A further name that must be served, as proof that it is one certain launch.
    on_rung : callable, optional
        Told each rung as it is done.

    Raises
    ------
    ParamsError
        When the address is not one.
    """
    return verify_target(Target(base_url, model or "", key=key, alias=alias), on_rung=on_rung)


def verify_target(target: Target, *, on_rung: Callable[[Rung], None] | None = None) -> Certificate:
    """Climb the ladder at an address of which more is asked, such as a thinking state or many chats at once.

    Parameters
    ----------
    target : Target
        The address and what must hold there.
    on_rung : callable, optional
        Told each rung as it is done.

    Raises
    ------
    ParamsError
        When the address is not one.
    """
    from tautools.http import Http

    target = replace(target, base_url=as_base_url(target.base_url))
    return certificate_of(urlsplit(target.base_url).netloc, climb(target, http=Http(), on_rung=on_rung))
