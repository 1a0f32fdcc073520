"""The doors of the central node: who may call what. Three kinds of callers, three questions.

A client shows its secret, somebody who wants to join the join token, an operator the operator token. On a loopback
bind the operator's door stands open for this machine's own programs and browser pages: a loopback Host, an Origin (if
there is one) that is ours, and no sign of a proxy in front. Tokens themselves: `tokens`.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from fednode.central.presence import Presence
from fednode.central.tokens import TokenFile, hash_secret, require_kind
from fednode.errors import NotAuthorised
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore

PROXY_HEADERS = ("forwarded", "via")
PROXY_PREFIX = "x-forwarded-"
SCHEME = "bearer "


class Doors:
    """All checks of one central node."""

    def __init__(self, store: SqlStore, presence: Presence, tokens: TokenFile, *, is_loopback: bool) -> None:
        self.tokens = tokens
        self.is_loopback = is_loopback
        self._store = store
        self._presence = presence

    async def client_of(self, connection: HTTPConnection) -> ClientRecord:
        """The client whose secret came. A sign of life. Raises NotAuthorised."""
        secret = bearer_of(connection)
        if not secret:
            raise NotAuthorised("no client secret came with this request", fix="register first, then send the secret")
        require_kind(secret, "sec_")
        record = await self._store.client_by_secret(hash_secret(secret))
        if record is None:
            raise NotAuthorised(
                "no client of this central node has this secret", fix="register again, with a join token"
            )
        if record.is_revoked:
            raise NotAuthorised(
                f"client {record.name!r} was revoked", fix="ask the operator; it may join again under another name"
            )
        self._presence.heard(record.name)
        return record

    def require_join(self, connection: HTTPConnection) -> None:
        """Raise NotAuthorised unless the caller may register a client."""
        token = bearer_of(connection)
        if not token:
            raise NotAuthorised("a join token is needed to register", fix="give it by --token or FEDNODE_TOKEN")
        self.tokens.require_join(token)

    def require_operator(self, connection: HTTPConnection) -> None:
        """Raise NotAuthorised unless the caller may see and change everything here."""
        token = bearer_of(connection)
        if token:
            self.tokens.require_operator(token)
        elif reason := self._closed_because(connection):
            raise NotAuthorised(
                f"the operator token is needed: {reason}", fix="send it as `Authorization: Bearer op_...`"
            )

    def require_host(self, connection: HTTPConnection) -> None:
        """Raise NotAuthorised for a foreign Host on a loopback bind: a page of somebody else's that found us.

        Who shows a bearer is exempt: no browser sends one by itself.
        """
        host = connection.headers.get("host", "")
        if self.is_loopback and not bearer_of(connection) and not is_loopback_host(host):
            raise NotAuthorised(
                f"this central node answers to this machine's own names, and was called {host!r}",
                fix="call it localhost, or send a token",
            )

    def _closed_because(self, connection: HTTPConnection) -> str:
        """Why the operator's door does not stand open for this request; "" where it does."""
        headers = connection.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        proxy = next((n for n in headers if n in PROXY_HEADERS or n.startswith(PROXY_PREFIX)), None)
        if not self.is_loopback:
            return "this central node can be reached from other machines"
        if proxy is not None:
            return f"the request came through a proxy ({proxy})"
        if not is_loopback_host(host):
            return f"the request is for {host!r}, not for this machine"
        if origin is not None and urlsplit(origin).netloc != host:
            return f"the request was made by a page of {origin!r}"
        return ""


def bearer_of(connection: HTTPConnection) -> str:
    """The token of the Authorization header, "" where there is none."""
    value = connection.headers.get("authorization", "")
    return value[len(SCHEME) :].strip() if value.lower().startswith(SCHEME) else ""


def is_loopback_host(host: str) -> bool:
    """Whether a Host header, or a name to bind, means this machine alone."""
    try:
        name = host if host.count(":") > 1 and "[" not in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name.rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
