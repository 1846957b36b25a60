"""Access to the network: short questions, by httpx; streams of a model's answer are in `tautools.http_stream`.

Proxies of the environment are never used: servers are on this machine, on a node of the cluster, or behind an address
that a person wrote down. Redirects are not followed, since the key would follow them. Keys travel as
`Authorization: Bearer` and appear in no error and no repr.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tautools.errors import CallFault, ModelCallError
from tautools.params.keys import read_key
from tautools.redaction import redacted


class ConnectError(ModelCallError):
    """No connection came about, so nothing was sent: the address is dead for now (unreachable or time-out)."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server answered, whatever its status."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body parsed as JSON; raises `ValueError` when it is not JSON."""
        return json.loads(self.text)


def http_get(url: str, *, key: str = "", timeout_s: float = 5.0) -> HttpResponse:
    """Return the answer to a GET.

    Parameters
    ----------
    url : str
        The address.
    key : str, optional
        Sent as `Authorization: Bearer`.
    timeout_s : float
        For connecting, and for each wait for data [s].

    Raises
    ------
    ModelCallError
        When nothing answers (`UNREACHABLE`) or not in time (`TIME_OUT`); any status is returned.
    """
    return _ask("GET", url, None, authorization(key), timeout_s)


def http_post(url: str, body: Any, *, key: str = "", timeout_s: float = 30.0) -> HttpResponse:
    """Return the answer to a POST of `body` as JSON, None for no body; the rest as in `http_get`."""
    if body is None:
        return _ask("POST", url, None, authorization(key), timeout_s)
    return _ask("POST", url, json.dumps(body).encode(), _headers(key), timeout_s)


def _ask(method: str, url: str, content: bytes | None, headers: dict[str, str], timeout_s: float) -> HttpResponse:
    import httpx

    try:
        # No certificates are loaded for a plain http address: that alone would take 20 ms.
        verify = url.startswith("https:")
        with httpx.Client(trust_env=False, timeout=timeout_s, verify=verify) as client:
            got = client.request(method, url, content=content, headers=headers)
    except httpx.TimeoutException as error:
        kind = ConnectError if isinstance(error, httpx.ConnectTimeout) else ModelCallError
        problem = f"{url} did not answer within {timeout_s:g} s."
        raise kind(problem, fault=CallFault.TIME_OUT, evidence=_error_text(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise unreachable(url, error) from None
    return HttpResponse(got.status_code, got.text, dict(got.headers))


def unreachable(url: str, error: Exception) -> ConnectError:
    """Return the error for an address at which nobody answers."""
    return ConnectError(f"{url} cannot be reached.", fault=CallFault.UNREACHABLE, evidence=_error_text(error))


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept-Encoding": "identity", **authorization(key)}


def authorization(key: str) -> dict[str, str]:
    """Return the header with a key, if there is one."""
    key = read_key(key, "this request")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _error_text(error: BaseException) -> str:
    return redacted(str(error))[:300] or type(error).__name__
