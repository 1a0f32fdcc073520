"""The only HTTP client: JSON by httpx2, the two bulk transfers by http.client, one set of rules for both.

Timeouts are on no progress, never on total time. Proxies and CAs come from the environment; a central node on
this machine is reached without a proxy. Where there is a proxy, bulk goes through httpx2 too.
What an address is: `wire/addresses.py`. What an answer means: `wire/answers.py`. How a download goes on after a cut:
`wire/transfers.py`.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar
from urllib.parse import SplitResult

import httpx2
import stamina
from pydantic import BaseModel

from fednode.errors import BadConfig, CannotConnect, Conflict, DataError, FednodeError
from fednode.wire.addresses import address_of, proxy_for
from fednode.wire.answers import Reply, cannot_reach, not_ours, read_reply
from fednode.wire.backoff import Backoff
from fednode.wire.codec import PIECE_BYTES, disk_errors, replacing
from fednode.wire.messages import MEDIA_TYPE, OFFSET_HEADER, PROTOCOL, PROTOCOL_HEADER
from fednode.wire.transfers import Body, Door, Download, Exchange, Line, carry, open_door
from fednode.wire.trust import trust

CONNECT_TIMEOUT_S = 10.0
BULK_TIMEOUT_S = 60.0               # without a byte, or without an answer after the last one
RECEIVE_BYTES = 256 << 10           # at most, in one read: what a socket's buffer holds
SENDFILE_BYTES = 4 << 20            # at a time: each call costs 40 us, each piece is a step of somebody's progress bar

P = ParamSpec("P")
T = TypeVar("T")
_AS_IT_IS = {"Accept-Encoding": "identity"}


class Http:
    """A central node, as its clients and its people reach it. An async context manager.

    `token` is the bearer of every request that names no other; it may be replaced at any time. Every body that is
    sent passes `door` first.
    """

    def __init__(
        self, base_url: str, *, token: str = "", ca: Path | None = None, pin: str = "", door: Door = open_door
    ) -> None:
        """`ca` and `pin`: see `trust`. Raises BadConfig for an address, a CA file or a proxy that cannot be."""
        self.base_url = base_url.rstrip("/")
        self.token = token
        self._door = door
        self._reach = _Reach.of(self.base_url, ca, pin)
        self._client = self._reach.async_client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: Mapping[str, str] | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        """The JSON of the answer. Raises the error that the answer carries, or CannotConnect naming the address."""
        return read_reply(await self._exchange(method, path, body, params, token, timeout_s))

    @property
    def proxy(self) -> str | None:
        """What the environment puts on the way there."""
        return self._reach.proxy

    async def look(self, path: str) -> Reply:
        """What answers there, unread, without a token: for whoever examines the way."""
        return await self._exchange("GET", path, None, None, "", CONNECT_TIMEOUT_S)

    async def download(self, path: str, target: Path, *, expect_sha256: str, num_bytes: int | None = None) -> None:
        """Bring the file at `path` to `target`, whole and checked, or not at all.

        What a broken try brought stays in `<target>.part`: goes on from there, now while tries bring something,
        or in the next call. Raises CannotConnect, BadParamsFile (another hash or size), StoreFull, StoreError.
        """
        begun = target.with_name(f"{target.name}.part")
        fetch = Download(
            url=self.base_url, path=path, headers=self._headers() | _AS_IT_IS,
            file=begun, sha256=expect_sha256, num_bytes=num_bytes,
        )
        await carry(self._reach.line(), fetch.run)
        with disk_errors(target):
            begun.replace(target)

    async def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """The body at `path` as it comes, for what is too much to hold. Raises as `request` does."""
        limits = httpx2.Timeout(BULK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with _telling(self.base_url):
            asked = self._client.stream("GET", self.base_url + path, headers=self._headers(), timeout=limits)
            async with asked as answer:
                read_reply(self._reply(answer, b"" if answer.is_success else await answer.aread()))
                async for piece in answer.aiter_bytes():
                    yield piece

    async def upload(self, path: str, source: Path, *, offset: int) -> Any:
        """PUT `source` from `offset` on; the JSON of the answer to its last byte.

        After a broken connection it asks how far it came and goes on, while tries bring something.
        """
        is_told = False
        while True:
            try:
                return read_reply(await self._put(path, source, offset))
            except CannotConnect:
                reached = await self.upload_offset(path)
                if reached <= offset:
                    raise
            except Conflict as error:
                # Plain: the offset is not where the other side is. Told once, we know better.
                if type(error) is not Conflict or is_told:
                    raise
                is_told, reached = True, await self.upload_offset(path)
            offset = reached

    async def upload_offset(self, path: str) -> int:
        """How many bytes of this upload the central node has."""
        reply = await self._exchange("HEAD", path, None, None, None, BULK_TIMEOUT_S)
        read_reply(reply)
        said = reply.headers.get(OFFSET_HEADER.lower(), "")
        if not said.isdecimal():
            raise not_ours(reply)
        return int(said)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: BaseModel | None,
        params: Mapping[str, str] | None,
        token: str | None,
        timeout_s: float,
    ) -> Reply:
        headers = self._headers(token)
        content = None
        if body is not None:
            content = body.model_dump_json(by_alias=True).encode()
            headers["Content-Type"] = "application/json"
            self._door(method, path, len(content))
        with _telling(self.base_url):
            response = await self._client.request(
                method, self.base_url + path, content=content, params=params or None, headers=headers,
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            )
        return self._reply(response, response.content)

    def _reply(self, response: httpx2.Response, content: bytes) -> Reply:
        headers = _lower(response.headers)
        return Reply(url=self.base_url, status=response.status_code, headers=headers, content=content)

    async def _put(self, path: str, source: Path, offset: int) -> Reply:
        to = f"{path}{'&' if '?' in path else '?'}offset={offset}"

        def put(line: Line) -> Reply:
            num_bytes = source.stat().st_size - offset
            body = Body(source=source, offset=offset, num_bytes=num_bytes, leaves=partial(self._door, "PUT", path))
            headers = self._headers() | {"Content-Type": MEDIA_TYPE, "Content-Length": str(body.num_bytes)}
            with line.open("PUT", to, headers, body) as answer:
                return answer.reply()

        return await carry(self._reach.line(), put)

    def _headers(self, token: str | None = None) -> dict[str, str]:
        token = self.token if token is None else token
        return {PROTOCOL_HEADER: str(PROTOCOL)} | ({"Authorization": f"Bearer {token}"} if token else {})


# --- retries, and downloads from elsewhere ------------------------------------------------------------


def with_retries(
    call: Callable[P, Awaitable[T]],
    *,
    attempts: int | None = None,
    on_wait: Callable[[FednodeError, float], None] | None = None,
) -> Callable[P, Coroutine[Any, Any, T]]:
    """`call`, tried again while nobody answers, too late, or with a wish to be left alone (Retry-After).

    Full jitter: before try n + 1 it waits between 0 and min(10, 0.1 * 2**(n - 1)) seconds, of which `on_wait` is
    told. `attempts` None: for ever. Any other error, and that of the last attempt, is raised.
    """
    stamina.instrumentation.set_on_retry_hooks(())      # by default it logs to stdout, which belongs to the CLI

    async def retried(*args: P.args, **kwargs: P.kwargs) -> T:
        tries = stamina.retry_context(on=Backoff(on_wait), attempts=attempts, timeout=None)
        async for attempt in tries:
            with attempt:
                return await call(*args, **kwargs)
        raise AssertionError("stamina returns or raises")

    return retried


def fetch_file(url: str, target: Path, *, expect_md5: str, timeout_s: float) -> None:
    """A public file to `target`, blocking, checked. `timeout_s`: without a byte. Raises CannotConnect, DataError."""
    md5 = hashlib.md5(usedforsecurity=False)
    reach = replace(_Reach.of(url), tls=trust("https"))      # a mirror may point to its other name
    with reach.client(timeout_s) as client, _telling(url), replacing(target, is_durable=False) as file:
        with client.stream("GET", url, headers=_AS_IT_IS, follow_redirects=True) as response:
            if response.status_code != httpx2.codes.OK:
                raise CannotConnect(f"{url} answers {response.status_code}", fix="try again later, or from elsewhere")
            for piece in response.iter_raw():
                file.write(piece)
                md5.update(piece)
        if md5.hexdigest() != expect_md5:
            raise DataError(
                f"{url} has the md5 {md5.hexdigest()}, not {expect_md5}", fix="try again later, or from elsewhere"
            )


# --- how an address is reached ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Reach:
    """An address, the CAs that vouch for it and the proxy on the way: the same for control and for bulk."""

    url: str
    address: SplitResult
    tls: ssl.SSLContext
    proxy: str | None

    @staticmethod
    def of(url: str, ca: Path | None = None, pin: str = "") -> _Reach:
        """Raises BadConfig for an address, a CA file or a proxy that cannot be."""
        address = address_of(url)
        return _Reach(
            url=url, address=address, tls=trust(address.scheme, ca=ca, pin=pin), proxy=proxy_for(address)
        )

    def async_client(self) -> httpx2.AsyncClient:
        with _proxy_errors(self.proxy):
            return httpx2.AsyncClient(verify=self.tls, proxy=self.proxy, trust_env=False)

    def client(self, timeout_s: float) -> httpx2.Client:
        timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        with _proxy_errors(self.proxy):
            return httpx2.Client(verify=self.tls, proxy=self.proxy, trust_env=False, timeout=timeout)

    def line(self) -> _DirectLine | _ProxiedLine:
        return _ProxiedLine(self) if self.proxy else _DirectLine(self)


class _DirectLine:
    """http.client: a third of httpx2's CPU time per byte. It sets TCP_NODELAY itself."""

    def __init__(self, reach: _Reach) -> None:
        self._reach = reach
        self._socket: socket.socket | None = None
        self._is_hung_up = False

    @contextmanager
    def open(self, method: str, path: str, headers: Mapping[str, str], body: Body | None = None) -> Iterator[Exchange]:
        connection = self._connection()
        try:
            with _telling(self._reach.url):
                connection.connect()
                self._socket = connection.sock
                if self._is_hung_up:
                    raise ConnectionAbortedError("hung up")
                connection.sock.settimeout(BULK_TIMEOUT_S)
                connection.putrequest(method, self._reach.address.path + path, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                if body is not None and body.num_bytes:
                    # Whoever refuses a body may hang up before its end: his answer says why.
                    with suppress(BrokenPipeError, ConnectionResetError):
                        _send(connection.sock, body)
                response = connection.getresponse()
                pieces = iter(partial(response.read1, RECEIVE_BYTES), b"")
                yield Exchange(self._reach.url, response.status, _lower(response.headers), pieces)
        finally:
            connection.close()

    def hang_up(self) -> None:
        self._is_hung_up = True
        if self._socket is not None:
            with suppress(OSError):         # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> http.client.HTTPConnection:
        address = self._reach.address
        host = str(address.hostname)
        if address.scheme == "https":
            return http.client.HTTPSConnection(
                host, address.port, timeout=CONNECT_TIMEOUT_S, context=self._reach.tls
            )
        return http.client.HTTPConnection(host, address.port, timeout=CONNECT_TIMEOUT_S)


class _ProxiedLine:
    """httpx2: it speaks to every kind of proxy."""

    def __init__(self, reach: _Reach) -> None:
        self._reach = reach
        self._is_hung_up = False

    @contextmanager
    def open(self, method: str, path: str, headers: Mapping[str, str], body: Body | None = None) -> Iterator[Exchange]:
        content = None if body is None else self._until_hung_up(body.pieces(PIECE_BYTES))
        with _telling(self._reach.url), self._reach.client(BULK_TIMEOUT_S) as client:
            url = self._reach.url + path
            with client.stream(method, url, headers=dict(headers), content=content) as response:
                pieces = self._until_hung_up(response.iter_raw())
                yield Exchange(self._reach.url, response.status_code, _lower(response.headers), pieces)

    def hang_up(self) -> None:
        self._is_hung_up = True

    def _until_hung_up(self, pieces: Iterator[bytes] | Iterator[memoryview]) -> Iterator[bytes]:
        for piece in pieces:
            if self._is_hung_up:
                raise ConnectionAbortedError("hung up")
            yield bytes(piece)


def _send(sock: socket.socket, body: Body) -> None:
    """Each call that sends has its own time limit, so that a slow line is not a broken one."""
    if not isinstance(sock, ssl.SSLSocket):
        with body.source.open("rb") as file:
            for start, length in body.spans(SENDFILE_BYTES):
                sock.sendfile(file, start, length)
        return
    for piece in body.pieces(PIECE_BYTES):
        while piece:
            piece = piece[sock.send(piece) :]


@contextmanager
def _proxy_errors(proxy: str | None) -> Iterator[None]:
    try:
        yield
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise BadConfig(
            f"cannot use the proxy {proxy!r} of the environment: {error}",
            fix="correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
        ) from error


def _lower(headers: Mapping[str, str] | http.client.HTTPMessage) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Say CannotConnect, naming the address, where the network fails."""
    try:
        yield
    except (OSError, http.client.HTTPException, httpx2.RequestError) as error:
        raise cannot_reach(url, error) from error
