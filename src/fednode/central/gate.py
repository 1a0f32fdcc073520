"""What every request passes before it is routed: Host, protocol, size; and the headers that every answer carries.

Plain ASGI, no response is wrapped: bodies stream through untouched. Who may do what is decided behind it, by `auth`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fednode.central.answers import SEE_API, Refusal, problem_of
from fednode.central.auth import ONLY_READ, Doors
from fednode.central.bodies import announces_update, checked, is_update, require_body
from fednode.central.error_answers import told
from fednode.central.room import Room, busy
from fednode.errors import FednodeError, UsageError, VersionMismatch
from fednode.web.callers import is_loopback_host
from fednode.web.headers import HSTS, KEEP_NOTHING, SECURITY_HEADERS, cache_rule
from fednode.wire.messages import PROTOCOL, PROTOCOL_HEADER

BAD_REQUEST = 400
MAX_VERSION_DIGITS = 9
OLDEST_PROTOCOL = max(1, PROTOCOL - 1)
NEWEST_PROTOCOL = PROTOCOL + 1          # a newer neighbour still speaks ours
MAX_UNWRITTEN = 20_000                  # writes that wait for the disk: seconds of work, and tens of megabytes
# As they are sent, on every answer.
_OURS = {
    name.lower().encode(): value.encode()
    for name, value in {**SECURITY_HEADERS, PROTOCOL_HEADER: str(PROTOCOL)}.items()
}
_HOST = re.compile(r"[\w.\-\[\]:%]{1,255}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

log = structlog.get_logger(__name__)


class Gate:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, doors: Doors, num_unwritten: Callable[[], int]) -> None:
        """`num_unwritten`: how much waits for the store's disk."""
        self._app = app
        self._doors = doors
        self._num_unwritten = num_unwritten
        self._room = Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, connection = _Answer(scope, send), HTTPConnection(scope)
        try:
            self._check(connection)
            async with self._place(connection, answer):
                await self._app(scope, await checked(scope, receive), answer.send)
        except ClientDisconnect:
            return
        except Exception as error:
            if not isinstance(error, FednodeError | Refusal):       # a mistake of ours: it is logged whole
                log.exception("request.failed", method=scope["method"], path=scope["path"])
            await answer.refuse(told(problem_of(error, connection), connection), scope, receive)

    def _check(self, connection: HTTPConnection) -> None:
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise Refusal(400, "usage", f"a request has one Host header, this one has {hosts!r}"[:300], "send one")
        self._doors.require_host(connection)
        _require_readable(connection)
        _require_protocol(connection.headers.get(PROTOCOL_HEADER))
        require_body(connection.scope)

    @asynccontextmanager
    async def _place(self, connection: HTTPConnection, answer: _Answer) -> AsyncIterator[None]:
        """Room for what this request brings, for as long as it takes. Raises Refusal where there is none."""
        scope = connection.scope
        if scope["method"] not in ONLY_READ and self._num_unwritten() > MAX_UNWRITTEN:
            raise busy(f"{MAX_UNWRITTEN:,} writes wait for the disk")
        if not (announces_update(scope) or is_update(scope)):
            yield
            return
        who = f"{connection.headers.get('authorization')} {scope['path']}"
        await self._room.enter(who)
        try:
            yield
        finally:
            if announces_update(scope) and answer.is_good:
                self._room.keep(who)
            else:
                self._room.leave()


class _Answer:
    """Puts our headers on every answer, and knows whether one has begun."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._has_begun = False
        self.is_good = False            # what was asked is done

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun, self.is_good = True, message["status"] < BAD_REQUEST
            self._add_headers(MutableHeaders(scope=message), message["status"])
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders, status: int) -> None:
        scope = self._scope
        rule = cache_rule(scope["path"], scope["query_string"]) if status < BAD_REQUEST else KEEP_NOTHING
        headers.raw[:] = [*(pair for pair in headers.raw if pair[0] not in _OURS), *_OURS.items()]
        headers.setdefault("Cache-Control", rule)
        # Of a name that others share, such as localhost, it would shut out their clear ports.
        if scope["scheme"] == "https" and not is_loopback_host(Headers(scope=scope).get("host", "")):
            headers[HSTS[0]] = HSTS[1]

    async def refuse(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Nothing can be said any more where an answer has begun: the connection ends."""
        if not self._has_begun:
            await response(scope, receive, self.send)


def _require_readable(connection: HTTPConnection) -> None:
    """Refuse what no path or query of ours holds, and an expectation that we cannot meet."""
    scope = connection.scope
    if _CONTROL.search(scope["path"]):
        raise Refusal(404, "not_found", f"there is nothing at {scope['path']!r}", SEE_API)
    if b"%00" in scope["query_string"]:
        raise Refusal(400, "usage", "the address holds the character NUL", "send it without")
    if connection.headers.get("expect", "100-continue").lower() != "100-continue":
        raise Refusal(417, "usage", "an expectation that nothing here meets", "send no Expect header")


def _require_protocol(said: str | None) -> None:
    """Requests that say nothing (a browser, curl) are taken as of our protocol."""
    if said is None:
        return
    if not said.isdecimal() or len(said) > MAX_VERSION_DIGITS:
        raise UsageError(f"{PROTOCOL_HEADER}: {said[:100]!r} is no number", fix=f"send `{PROTOCOL_HEADER}: {PROTOCOL}`")
    if int(said) < OLDEST_PROTOCOL:
        raise VersionMismatch(
            f"you speak protocol {said}, this central node {PROTOCOL} and no older than {OLDEST_PROTOCOL}",
            fix="upgrade fednode on your side: the client node or the command line",
        )
    if int(said) > NEWEST_PROTOCOL:
        raise VersionMismatch(
            f"you speak protocol {said}, this central node only {PROTOCOL}", fix="upgrade fednode at the central node"
        )
