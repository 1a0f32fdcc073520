"""The doors of the central node: who may call what. Three kinds of callers, three questions.

A client shows its secret, somebody who wants to join the join token, an operator the operator token. On a loopback
bind the operator's door stands open for this machine's own programs and browser pages: a loopback Host, an Origin (if
there is one) that is ours, and no sign of a proxy in front. Everywhere else a browser signs in once by that token and
keeps a cookie, which changes things for our own pages only. Tokens and the cookie's value: `tokens`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from fednode.central.presence import Presence
from fednode.central.tokens import TokenFile, hash_secret, require_kind
from fednode.errors import NotAuthorised
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore
from fednode.web.callers import is_foreign_act, is_loopback_host, why_not_local

SCHEME = "bearer "
ONLY_READ = ("GET", "HEAD")


class Doors:
    """All checks of one central node. `public_url`: what a proxy in front makes of it, "" where there is none."""

    def __init__(
        self, store: SqlStore, presence: Presence, tokens: TokenFile, *, is_loopback: bool, public_url: str = ""
    ) -> None:
        self.tokens = tokens
        self.is_loopback = is_loopback
        self.public_url = public_url
        self._store = store
        self._presence = presence

    async def client_of(self, connection: HTTPConnection) -> ClientRecord:
        """The client whose secret came. A sign of life. Raises NotAuthorised."""
        record = await self._record_of(connection)
        self._presence.heard(record.name)
        return record

    async def identify(self, connection: HTTPConnection) -> tuple[str, ClientRecord | None]:
        """What the caller is here: `client`, `operator` or `join`; no sign of life. Raises NotAuthorised."""
        token = bearer_of(connection)
        if token.startswith("sec_"):
            return "client", await self._record_of(connection)
        if token.startswith("join_"):
            self.tokens.require_join(token)
            return "join", None
        self.require_operator(connection)
        return "operator", None

    async def _record_of(self, connection: HTTPConnection) -> ClientRecord:
        """Raises NotAuthorised."""
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
                f"the operator token is needed: {reason}",
                fix="sign in at /sign-in, or send it as `Authorization: Bearer op_...`",
            )

    def is_operator(self, connection: HTTPConnection) -> bool:
        """Whether `require_operator` would let this request pass."""
        try:
            self.require_operator(connection)
        except NotAuthorised:
            return False
        return True

    def is_signed_in(self, connection: HTTPConnection) -> bool:
        """Whether a browser shows what it was given when it signed in here."""
        return self.tokens.is_seal(connection.cookies.get(self.tokens.cookie_name, ""))

    def require_host(self, connection: HTTPConnection) -> None:
        """Raise NotAuthorised for a foreign Host on a loopback bind: a page of somebody else's that found us.

        Who shows a bearer is exempt: no browser sends one by itself.
        """
        host = connection.headers.get("host", "")
        if not self.is_loopback or bearer_of(connection) or is_loopback_host(host):
            return
        if not self.public_url or _hostname(host) != urlsplit(self.public_url).hostname:
            raise NotAuthorised(
                f"this central node answers to this machine's own names, and was called {host!r}",
                fix="call it localhost, or send a token; behind a proxy start it with --public-url",
            )

    def _closed_because(self, connection: HTTPConnection) -> str:
        """Why the operator's door does not open for this request, which shows no token; "" where it does."""
        reason = self._why_sign_in(connection)
        if not reason or not self.is_signed_in(connection):
            return reason
        origin = connection.headers.get("origin")
        if origin is not None and origin not in self._own_origins(connection):
            return f"the request was made by a page of {origin!r}"
        if origin is None and not _only_reads(connection) and not _is_of_same_origin(connection):
            return "a signed-in browser changes something from our own pages only, and this request names none"
        return ""

    def _why_sign_in(self, connection: HTTPConnection) -> str:
        if not self.is_loopback:
            return "this central node can be reached from other machines"
        if self.public_url:
            # A proxy may add no header of its own and say Host: localhost, so everybody may be from afar.
            return f"this central node can be reached as {self.public_url}"
        if is_foreign_act(connection.scope["method"], connection.headers):
            return "the request was made by another site's page"
        return why_not_local(connection.headers)

    def _own_origins(self, connection: HTTPConnection) -> tuple[str, str]:
        return f"{connection.scope['scheme']}://{connection.headers.get('host', '')}", self.public_url


def bearer_of(connection: HTTPConnection) -> str:
    """The token of the Authorization header, "" where there is none."""
    value = connection.headers.get("authorization", "")
    return value[len(SCHEME) :].strip() if value.lower().startswith(SCHEME) else ""


def _only_reads(connection: HTTPConnection) -> bool:
    return connection.scope["method"] in ONLY_READ


def _is_of_same_origin(connection: HTTPConnection) -> bool:
    return connection.headers.get("sec-fetch-site") == "same-origin"


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
