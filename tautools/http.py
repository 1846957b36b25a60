"""All access to the network: short questions (httpx) and streams of a model's answer (`StreamHttp`, aiohttp).

Proxies of the environment are never used: servers are on this machine, on a node of the cluster, or behind an address
that a person wrote down. Redirects are not followed, since the key would follow them. Keys travel as
`Authorization: Bearer` and appear in no error and no repr. aiohttp carries the streams because it needs a tenth of the
processor time of the alternatives, and measured latencies are only true while the client is idle most of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tautools.errors import CallFault, ModelCallError
from tautools.params.keys import read_key
from tautools.redaction import redacted

if TYPE_CHECKING:
    import aiohttp


_KEEP_ALIVE_S = 4.0
"""Idle connections are closed after this [s]: uvicorn, under vLLM, closes its end after 5 s, and whoever is second
would write into a closed connection."""

_LINGER_S = 0.5


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
    return _ask("GET", url, None, _authorization(key), timeout_s)


def http_post(url: str, body: Any, *, key: str = "", timeout_s: float = 30.0) -> HttpResponse:
    """Return the answer to a POST of `body` as JSON, None for no body; the rest as in `http_get`."""
    if body is None:
        return _ask("POST", url, None, _authorization(key), timeout_s)
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
        raise _unreachable(url, error) from None
    return HttpResponse(got.status_code, got.text, dict(got.headers))


class StreamedResponse:
    """An answer whose body is still arriving."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.content_type
        self.headers: Mapping[str, str] = response.headers
        self.read = response.content.readany
        """Await it for the bytes that arrived since the last time; b"" at the end."""

    async def text(self, most: int = 65_536) -> str:
        """Return the body as text, at most `most` bytes of it."""
        data = bytearray()
        while len(data) < most and (piece := await self.read()):
            data += piece
        return bytes(data[:most]).decode(errors="replace")

    async def linger(self) -> None:
        """Give an answer that is complete a moment to end, so that its connection can be used again."""
        import aiohttp

        with contextlib.suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
            async with asyncio.timeout(_LINGER_S):
                await self.read()


class StreamHttp:
    """Connections for streamed answers, kept alive between requests; as many at a time as are asked for.

    Parameters
    ----------
    connect_timeout_s : float
        For one connection to come about [s].
    """

    def __init__(self, *, connect_timeout_s: float = 10.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def post(
        self, url: str, body: bytes, *, key: str = "", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[StreamedResponse]:
        """Send `body` (JSON), with further `headers`, and give the answer as soon as its head is there.

        Errors while reading are raised too.

        Raises
        ------
        ConnectError
            When no connection comes about.
        ModelCallError
            `BROKEN_STREAM` when the connection breaks later, `MALFORMED` when the answer is not HTTP.
        """
        if self._session is None:
            raise RuntimeError("StreamHttp is used inside `async with`")
        with _translated_errors(url, self._connect_timeout_s):
            sent = {**(headers or {}), **_headers(key)}
            async with self._session.post(url, data=body, headers=sent, allow_redirects=False) as response:
                yield StreamedResponse(response)


@contextlib.contextmanager
def _translated_errors(url: str, connect_timeout_s: float) -> Iterator[None]:
    """Say aiohttp's errors in our words."""
    import aiohttp

    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        problem = f"No connection to {url} within {connect_timeout_s:g} s."
        raise ConnectError(problem, fault=CallFault.TIME_OUT, evidence=_error_text(error)) from None
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
        raise _unreachable(url, error) from None
    except aiohttp.ClientResponseError as error:
        problem = f"{url} does not answer in HTTP."
        raise ModelCallError(problem, fault=CallFault.MALFORMED, evidence=redacted(error.message)[:300]) from None
    except (aiohttp.ClientError, ConnectionError) as error:
        problem = f"The connection to {url} broke."
        raise ModelCallError(problem, fault=CallFault.BROKEN_STREAM, evidence=_error_text(error)) from None


def _unreachable(url: str, error: Exception) -> ConnectError:
    return ConnectError(f"{url} cannot be reached.", fault=CallFault.UNREACHABLE, evidence=_error_text(error))


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept-Encoding": "identity", **_authorization(key)}


def _authorization(key: str) -> dict[str, str]:
    key = read_key(key, "this request")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _error_text(error: BaseException) -> str:
    return redacted(str(error))[:300] or type(error).__name__
