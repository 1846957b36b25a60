"""Streams of a model's answer over HTTP/1.1: one POST at a time on a connection, its body handed on as it arrives.

A measured latency is only true while the client is idle most of the time, so a chunk goes from the socket to its reader
in one call of the event loop, without a task that wakes up in between. As everywhere here, no proxies, no redirects,
and keys in no error and no repr (`tautools.http`).
"""

import asyncio
import base64
import contextlib
import functools
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from tautools.errors import CallFault, ModelCallError
from tautools.http import ConnectError, authorization, unreachable
from tautools.redaction import redacted

_KEEP_ALIVE_S = 4.0
"""Idle connections are not used after this [s]: uvicorn, under vLLM, closes its end after 5 s, and a request at
that moment would be written into a closed connection."""

_LINGER_S = 0.5
_LONGEST_HEAD = 2**16
_LONGEST_SIZE = 4096
_MOST_AT_ONCE = 2**26
"""Bytes that one read may become when it is decompressed."""

_NO_BODY = {204, 304}
_AS_IT_IS = "/%:@!$&'()*+,;=~?"
"""Characters of an address that are sent without an escape."""


class _NotHttpError(Exception):
    """What came is not HTTP."""


class _Origin(NamedTuple):
    host: str
    port: int
    tls: bool


class _Connection(asyncio.Protocol):
    """One connection: sends a request, gives the head of the answer, then hands the body on piece by piece."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.lost: Exception | None = None
        self.idle_since = 0.0
        self._closed_cleanly = False
        self.reset()

    def reset(self) -> None:
        """Forget the last answer."""
        self.whole = False
        """Whether the answer has ended."""
        self.keep = False
        """Whether the server keeps the connection open after it."""
        self._held = b""  # what nobody has read yet
        self._take: Callable[[bytes], Any] | None = None
        self._enough = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._unframe: Callable[[bytes], bytes] = bytes
        self._left = 0  # bytes of the body, or of the chunk and the end of its line
        self._trailer = False
        self._until_closed = False
        self._inflate: Any = None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self.whole and self.keep and self.lost is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of a new connection."""
        self.transport = transport
        if wire := transport.get_extra_info("socket"):
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection, which ends a body of unknown length and breaks any other."""
        self.lost = ConnectionResetError(str(exc or "it was closed before the answer was whole"))
        self._closed_cleanly = exc is None
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._error is not None:
            return
        if self._take is not None and not self.whole:
            self._pass_on(data)
        elif len(self._held) <= _LONGEST_HEAD:
            self._held += data
            self.keep = self.keep and not self.whole  # what follows a whole answer belongs to no request
            self._wake()
        else:
            self.transport.pause_reading()
            self._held += data

    def _pass_on(self, data: bytes) -> None:
        try:
            body = self._unframe(data)
            if body and self._inflate:
                body = self._inflated(body)
            if body and not self._enough and self._take and self._take(body):
                self._enough = True  # the rest is read to its end and dropped
                self._wake()
        except Exception as error:  # noqa: BLE001 - it is raised again in the task that reads
            self._wake(error)
        else:
            if self.whole:
                self._wake()

    def _wake(self, error: BaseException | None = None) -> None:
        self._error = self._error or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        """Wait for more, or for the end; raises what was met meanwhile."""
        if self._error is None and self.lost is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        if self.lost is not None and not self._is_over():
            raise self.lost

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers (names in lower case) of the answer, and get ready for its body."""
        while True:
            while (end := self._held.find(b"\r\n\r\n")) < 0:
                if len(self._held) > _LONGEST_HEAD or not self._held.startswith(b"HTTP/1."[: len(self._held)]):
                    raise _NotHttpError(self._held[:300].decode(errors="replace"))
                await self._wait()
            first, *lines = self._held[:end].decode("latin-1").split("\r\n")
            self._held = self._held[end + 4 :]
            version, status = _status_line(first)
            if status >= 200:
                break
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.keep = "close" not in headers.get("connection", "" if version == "1.1" else "close").lower()
        self._frame(status, headers)
        return status, headers

    def _frame(self, status: int, headers: Mapping[str, str]) -> None:
        """Note how the body is cut and packed."""
        length = headers.get("content-length")
        if status in _NO_BODY or (length == "0" and "transfer-encoding" not in headers):
            self.whole, self.keep = True, self.keep and not self._held
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._unframe = self._unchunk
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise _NotHttpError(f"content-length: {length[:80]}")
            self._unframe, self._left = self._cut, int(length)
        else:
            self._until_closed, self.keep = True, False
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding in {"gzip", "x-gzip", "deflate"}:
            self._inflate = zlib.decompressobj(47)
        elif encoding not in {"identity", ""}:
            raise _NotHttpError(f"content-encoding: {encoding[:80]}, although the request allows none")

    def _cut(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to a body of known length."""
        self.keep = self.keep and len(data) <= self._left
        data = data[: self._left]
        self._left -= len(data)
        self.whole = not self._left
        return data

    def _unchunk(self, data: bytes) -> bytes:
        """Return the content of the chunks in `data`."""
        if self._held:
            data, self._held = self._held + data, b""
        at, size, pieces = 0, len(data), []
        left = self._left
        while at < size:
            if not left:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._held = data[at:]
                    break
                left = self._size(data[at:end])
                at = end + 2
                if self.whole:
                    self.keep = self.keep and at == size
                    break
                continue
            end = at + left
            pieces.append(data[at : end - 2] if left > 2 else b"")  # without the end of the line after it
            left = max(0, end - size)
            at = end
        self._left = left
        if len(self._held) > _LONGEST_SIZE:
            raise _NotHttpError("a chunk without its size")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size(self, line: bytes) -> int:
        """Return the bytes of a chunk with its end of line, from the line before it; 0 for those after the last."""
        if self._trailer:
            self.whole = not line
            return 0
        number = line if line.isalnum() else line.partition(b";")[0].strip()
        try:
            size = int(number, 16) if number.isalnum() else -1
        except ValueError:
            size = -1
        if not 0 <= size < 2**60:
            raise _NotHttpError(f"a chunk of size {line[:40]!r}")
        self._trailer = not size
        return size and size + 2

    def _inflated(self, data: bytes) -> bytes:
        body: bytes = self._inflate.decompress(data, _MOST_AT_ONCE)
        if self._inflate.unconsumed_tail:
            raise _NotHttpError(f"a body that is {_MOST_AT_ONCE // len(data)} times as long as what was sent")
        return body

    async def read_into(self, take: Callable[[bytes], Any]) -> None:
        """See `StreamedResponse.read_into`."""
        self._take = take
        held, self._held = self._held, b""
        if held and not self.whole:
            self._pass_on(held)
        self.transport.resume_reading()
        while not self._enough and not self._is_over():
            await self._wait()
        if self._error is not None:
            raise self._error
        with contextlib.suppress(TimeoutError, OSError, _NotHttpError):
            async with asyncio.timeout(_LINGER_S):
                while not self._is_over():
                    await self._wait()

    def _is_over(self) -> bool:
        """Whether the body has ended; one of unknown length ends with the connection."""
        self.whole = self.whole or (self._until_closed and self._closed_cleanly)
        return self.whole


def _status_line(line: str) -> tuple[str, int]:
    """Return version and status of an answer's first line."""
    version, _, rest = line.removeprefix("HTTP/").partition(" ")
    if not rest[:3].isdigit():
        raise _NotHttpError(line[:300])
    return version, int(rest[:3])


class StreamedResponse:
    """An answer whose body is still arriving."""

    def __init__(self, connection: _Connection, status: int, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        """Names in lower case."""
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        """Without its parameters; empty when it is not told."""

    async def read_into(self, take: Callable[[bytes], Any]) -> None:
        """Call `take` with each piece of the body as it arrives, until its end or until `take` returns something true.

        Then the rest gets a moment to end, so that the connection can be used again. What `take` raises is raised here.
        """
        await self._connection.read_into(take)

    async def text(self, most: int = 65_536) -> str:
        """Return the body as text, at most `most` bytes of it."""
        data = bytearray()

        def keep(piece: bytes) -> bool:
            data.extend(piece)
            return len(data) >= most

        await self.read_into(keep)
        return bytes(data[:most]).decode(errors="replace")


class StreamHttp:
    """Connections for streamed answers, kept alive between requests; as many at a time as are asked for.

    Parameters
    ----------
    connect_timeout_s : float
        For one connection to come about [s].
    """

    def __init__(self, *, connect_timeout_s: float = 10.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[_Origin, list[_Connection]] | None = None

    async def __aenter__(self) -> Self:
        self._idle = {}
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in (each for idle in (self._idle or {}).values() for each in idle):
            connection.transport.abort()
        self._idle = None
        await asyncio.sleep(0)  # the loop closes the sockets

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
        if self._idle is None:
            raise RuntimeError("StreamHttp is used inside `async with`")
        with _translated_errors(url):
            origin, head = _request_head(url)
            sent = {**(headers or {}), **authorization(key), **_credentials(url)}
            fields = "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in sent.items())
            connection = await self._connect(url, origin)
            try:
                text = f"{head}{fields}Content-Length: {len(body)}\r\n\r\n"
                connection.transport.write(text.encode() + body)
                yield StreamedResponse(connection, *await connection.head())
            finally:
                self._release(origin, connection)

    async def _connect(self, url: str, origin: _Origin) -> _Connection:
        """Return a connection that is open: an idle one, or a new one."""
        loop = asyncio.get_running_loop()
        idle = (self._idle or {}).get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.usable and loop.time() - connection.idle_since < _KEEP_ALIVE_S:
                connection.reset()
                return connection
            connection.transport.abort()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                tls = _tls() if origin.tls else None
                _, connection = await loop.create_connection(
                    _Connection, origin.host, origin.port, ssl=tls, happy_eyeballs_delay=0.25
                )
        except TimeoutError:
            problem = f"No connection to {url} within {self._connect_timeout_s:g} s."
            raise ConnectError(problem, fault=CallFault.TIME_OUT) from None
        except (OSError, ValueError) as error:
            raise unreachable(url, error) from None
        return connection

    def _release(self, origin: _Origin, connection: _Connection) -> None:
        """Keep a connection for the next request when its answer has ended; end it otherwise."""
        if connection.usable and self._idle is not None:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.setdefault(origin, []).append(connection)
        else:
            connection.transport.abort()


@functools.lru_cache(maxsize=64)
def _request_head(url: str) -> tuple[_Origin, str]:
    """Return where a request to `url` goes, and its first lines; raises `ConnectError` for what is no such address."""
    try:
        return _read_url(url)
    except ValueError as error:
        raise unreachable(url, error) from None


def _read_url(url: str) -> tuple[_Origin, str]:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is no http address")
    path = quote(parts.path or "/", safe=_AS_IT_IS)
    path += parts.query and f"?{quote(parts.query, safe=_AS_IT_IS)}"
    host = parts.netloc.rpartition("@")[2]
    host = host if host.isascii() else host.encode("idna").decode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: tautools",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Content-Type: application/json",
    ]
    return _Origin(parts.hostname, parts.port or (443 if tls else 80), tls), "\r\n".join(lines) + "\r\n"


@functools.lru_cache(maxsize=64)
def _credentials(url: str) -> dict[str, str]:
    """Return the header for a name and password in the address, which go before a key as they do in httpx."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@functools.cache
def _tls() -> Any:
    import ssl

    return ssl.create_default_context()


@contextlib.contextmanager
def _translated_errors(url: str) -> Iterator[None]:
    """Say what goes wrong on a connection in our words."""
    try:
        yield
    except _NotHttpError as error:
        problem = f"{url} does not answer in HTTP."
        raise ModelCallError(problem, fault=CallFault.MALFORMED, evidence=redacted(str(error))[:300]) from None
    except zlib.error as error:
        problem = f"{url} sends a body that cannot be decompressed."
        raise ModelCallError(problem, fault=CallFault.MALFORMED, evidence=str(error)) from None
    except ConnectionError as error:
        problem = f"The connection to {url} broke."
        raise ModelCallError(problem, fault=CallFault.BROKEN_STREAM, evidence=redacted(str(error))[:300]) from None
