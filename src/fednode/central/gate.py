"""What every request passes before it is routed: Host, protocol, size; and the headers that every answer carries.

Plain ASGI, no response is wrapped: bodies stream through untouched. Who may do what is decided behind it, by `auth`.
"""

from __future__ import annotations

import re

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fednode.central.answers import Refusal, problem_of
from fednode.central.auth import Doors
from fednode.central.error_answers import told
from fednode.errors import FednodeError, UsageError, VersionMismatch
from fednode.web.callers import is_loopback_host
from fednode.web.headers import HSTS, KEEP_NOTHING, SECURITY_HEADERS, cache_rule
from fednode.wire.messages import PROTOCOL, PROTOCOL_HEADER

MAX_JSON_BYTES = 1 << 20
MAX_PRESENCE_BYTES = 4 << 20            # offers carry schemas
BAD_REQUEST = 400
PRESENCE_PATH = "/api/v1/clients/me"
_BODY_OF_UPDATE = re.compile(r"/api/v1/assignments/[^/]+/update")
OLDEST_PROTOCOL = max(1, PROTOCOL - 1)
NEWEST_PROTOCOL = PROTOCOL + 1          # a newer neighbour still speaks ours

log = structlog.get_logger(__name__)


class Gate:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, connection = _Answer(scope, send), HTTPConnection(scope)
        try:
            self._check(connection)
            await self._app(scope, _limited(scope, receive), answer.send)
        except Exception as error:
            if not isinstance(error, FednodeError | Refusal):       # a mistake of ours: it is logged whole
                log.exception("request.failed", method=scope["method"], path=scope["path"])
            await answer.refuse(told(problem_of(error, connection), connection), scope, receive)

    def _check(self, connection: HTTPConnection) -> None:
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1:
            raise Refusal(400, "usage", f"a request has one Host header, this one has {len(hosts)}", "send one")
        self._doors.require_host(connection)
        _require_protocol(connection.headers.get(PROTOCOL_HEADER))
        limit = _body_limit(connection.scope)
        length = connection.headers.get("content-length", "")
        if limit is not None and length.isdecimal() and int(length) > limit:
            raise _too_large(limit)


class _Answer:
    """Puts our headers on every answer, and knows whether one has begun."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            self._add_headers(MutableHeaders(scope=message), message["status"])
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders, status: int) -> None:
        scope = self._scope
        rule = cache_rule(scope["path"], scope["query_string"]) if status < BAD_REQUEST else KEEP_NOTHING
        headers[PROTOCOL_HEADER] = str(PROTOCOL)
        headers.update(SECURITY_HEADERS)
        headers.setdefault("Cache-Control", rule)
        # Of a name that others share, such as localhost, it would shut out their clear ports.
        if scope["scheme"] == "https" and not is_loopback_host(Headers(scope=scope).get("host", "")):
            headers[HSTS[0]] = HSTS[1]

    async def refuse(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Nothing can be said any more where an answer has begun: the connection ends."""
        if not self._has_begun:
            await response(scope, receive, self.send)


def _require_protocol(said: str | None) -> None:
    """Requests that say nothing (a browser, curl) are taken as of our protocol."""
    if said is None:
        return
    if not said.isdecimal():
        raise UsageError(f"{PROTOCOL_HEADER}: {said!r} is no number", fix=f"send `{PROTOCOL_HEADER}: {PROTOCOL}`")
    if int(said) < OLDEST_PROTOCOL:
        raise VersionMismatch(
            f"you speak protocol {said}, this central node {PROTOCOL} and no older than {OLDEST_PROTOCOL}",
            fix="upgrade fednode on your side: the client node or the command line",
        )
    if int(said) > NEWEST_PROTOCOL:
        raise VersionMismatch(
            f"you speak protocol {said}, this central node only {PROTOCOL}", fix="upgrade fednode at the central node"
        )


def _body_limit(scope: Scope) -> int | None:
    """Bytes that a JSON body may have; None for an update's body, which is measured by its announcement."""
    if scope["method"] == "PUT" and _BODY_OF_UPDATE.fullmatch(scope["path"]):
        return None
    return MAX_PRESENCE_BYTES if scope["path"] == PRESENCE_PATH else MAX_JSON_BYTES


def _limited(scope: Scope, receive: Receive) -> Receive:
    """`receive` that counts: a body without a Content-Length is measured while it comes."""
    limit = _body_limit(scope)
    if limit is None or "content-length" in Headers(scope=scope):
        return receive
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"a body of more than {limit:,} bytes", "send less: params go by PUT")
