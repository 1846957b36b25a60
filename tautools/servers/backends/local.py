"""Servers as processes of this machine, and the addresses by which other nodes reach them."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from tautools.errors import ParamsError

_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


def routable_host(bound: str, reach: str | None = None) -> str:
    """Return the host part of the address that others use for a server bound to `bound`.

    Parameters
    ----------
    bound : str
        The address that it binds to. One that is not every address is the answer itself.
    reach : str, optional
        An interface such as `ib0`, a network such as `10.0.0.0/8`, or an address of this node; the host name when not
        given.

    Raises
    ------
    ParamsError
        When this node has no such interface or no address in that network.
    """
    if bound not in _EVERY_ADDRESS:
        return _bracketed(bound)
    if reach is None:
        return socket.gethostname()
    addresses = node_addresses()
    fitting = addresses.get(reach) or [each for own in addresses.values() for each in own if _in_network(each, reach)]
    if not fitting:
        raise ParamsError(
            f"This node has no interface or address that fits `reach: {reach}` of the site.",
            evidence="; ".join(f"{name}: {', '.join(own)}" for name, own in addresses.items()),
            next_step="Name one of these interfaces, or a network such as 10.0.0.0/8.",
        )
    return _bracketed(fitting[0])


def node_addresses() -> dict[str, list[str]]:
    """Return this node's addresses by interface, those of IPv4 first; link-local ones are left out."""
    found: dict[str, list[str]] = {}
    for name, entries in psutil.net_if_addrs().items():
        for family in (socket.AF_INET, socket.AF_INET6):
            own = [entry.address.partition("%")[0] for entry in entries if entry.family == family]
            found.setdefault(name, []).extend(each for each in own if not ipaddress.ip_address(each).is_link_local)
    return {name: own for name, own in found.items() if own}


def _in_network(address: str, reach: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(reach, strict=False)
    except ValueError:
        return False


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
