"""What an answer of the central node means, or its absence: JSON, or one of `fednode.errors`, found by its code.

Nothing here opens a connection; `wire/http.py` brings the answers.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fednode.errors import (
    CannotConnect,
    Conflict,
    FednodeError,
    NotAuthorised,
    NotFound,
    NotTrusted,
    StoreFull,
    TooLarge,
    UsageError,
    VersionMismatch,
)
from fednode.wire.messages import PROTOCOL, PROTOCOL_HEADER, ErrorBody

_PROXY_SAYS_NO = {502, 503, 504}
_BUSY = {429, 503}
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
_EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 10, 62, 64      # of OpenSSL's X509_V_ERR_*
_CERTIFICATE_FIXES = {
    _EXPIRED: "renew it at the central node, or correct the clock of this machine",
    **dict.fromkeys(
        (_OTHER_HOST, _OTHER_ADDRESS),
        "call the central node by a name that is in its certificate, or make one with this name as subjectAltName",
    ),
}
_BY_STATUS: Mapping[int, type[FednodeError]] = {
    401: NotAuthorised, 403: NotAuthorised, 404: NotFound, 409: Conflict, 413: TooLarge, 426: VersionMismatch,
    429: CannotConnect, 507: StoreFull, **dict.fromkeys(_PROXY_SAYS_NO, CannotConnect),
}


class AskedToWait(CannotConnect):
    """The other side is there and wants to be left alone for a while: 429 or 503 with Retry-After."""

    def __init__(self, message: str, *, fix: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One HTTP answer, whoever fetched it."""

    url: str
    status: int
    headers: Mapping[str, str]      # names in lower case
    content: bytes = b""


def read_reply(reply: Reply, *, protocol: int = PROTOCOL) -> Any:
    """Its JSON, None where it has no content. Raises the error that it carries, VersionMismatch, CannotConnect."""
    _require_protocol(reply, protocol)
    if reply.status >= 300:
        raise error_of(reply)
    if not reply.content:
        return None
    try:
        return json.loads(reply.content)
    except ValueError as error:
        raise not_ours(reply) from error


def error_of(reply: Reply) -> FednodeError:
    """The error that a reply with a status of 300 or more stands for."""
    body = _error_body(reply)
    kind = _KINDS.get(body.code) if body else None
    kind = kind or _BY_STATUS.get(reply.status) or (UsageError if 400 <= reply.status < 500 else FednodeError)
    if body is None and 300 <= reply.status < 400:
        return not_ours(reply)
    message = body.message if body else f"{reply.url} answers {reply.status}: {_excerpt(reply.content)}"
    fix = body.fix if body else "check that this is the address of a fednode central node, and read its log"
    if kind is CannotConnect and reply.status in _BUSY:
        return AskedToWait(message, fix=fix, retry_after_s=_retry_after_s(reply))
    return kind(message, fix=fix)


def not_ours(reply: Reply) -> CannotConnect:
    """Somebody answers there who does not speak as a central node does."""
    towards = f" and points to {reply.headers['location']}" if "location" in reply.headers else ""
    return CannotConnect(
        f"{reply.url} answers {reply.status}{towards}, not as a fednode central node: {_excerpt(reply.content)}",
        fix="give the address of the central node itself (http://HOST:PORT or https://HOST)",
    )


def cannot_reach(url: str, error: Exception) -> CannotConnect:
    """The error for a network that fails, naming the address and what the operating system said."""
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return NotTrusted(
            f"the certificate of {url} is not to be trusted: {root.verify_message}",
            fix=_CERTIFICATE_FIXES.get(root.verify_code, "name the CA that signed it: --ca FILE, or SSL_CERT_FILE"),
        )
    return CannotConnect(f"cannot reach {url}: {_reason(root)}", fix=_connect_fix(url, root))


def _connect_fix(url: str, root: BaseException) -> str:
    if isinstance(root, ssl.SSLError) and root.reason in _NOT_TLS:
        return f"there is no TLS at that port: write http{url.removeprefix('https')}, or name the port that has it"
    is_hang_up = getattr(root, "errno", None) in (None, errno.ECONNRESET) and not isinstance(root, TimeoutError)
    if is_hang_up and url.startswith("http://"):
        return "check the address and the port; where the central node has TLS, write https://"
    return "start the central node there, or check address, port, proxy and firewall"


def _reason(root: BaseException) -> str:
    if isinstance(root, TimeoutError):
        return "no answer in time"
    if isinstance(root, OSError) and not isinstance(root, (ssl.SSLError, socket.gaierror)) and root.errno:
        return os.strerror(root.errno)      # not root.strerror: asyncio says "Connect call failed" in all cases
    return getattr(root, "strerror", None) or str(root) or type(root).__name__


def _root(error: BaseException) -> BaseException:
    """What the operating system said, below the layers that wrapped it."""
    if isinstance(error, BaseExceptionGroup):
        return _root(error.exceptions[0])
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    below = error.__cause__ or error.__context__
    return error if below is None else _root(below)


def _require_protocol(reply: Reply, ours: int) -> None:
    """A newer neighbour judges us itself; an older one may be one step behind."""
    said = reply.headers.get(PROTOCOL_HEADER.lower(), "")
    if said.isdecimal() and int(said) < ours - 1:
        raise VersionMismatch(
            f"{reply.url} speaks protocol {int(said)}, this side {ours}", fix="upgrade fednode at the central node"
        )
    if reply.status == VersionMismatch.http_status and _error_body(reply) is None:
        raise VersionMismatch(
            f"{reply.url} speaks protocol {said or 'unknown'}, this side {ours}, which it does not take",
            fix="upgrade fednode on this side",
        )


def _error_body(reply: Reply) -> ErrorBody | None:
    try:
        return ErrorBody.model_validate_json(reply.content)
    except ValidationError:
        return None


def _retry_after_s(reply: Reply) -> float:
    said = reply.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0


def _excerpt(content: bytes) -> str:
    return " ".join(content[:200].decode("utf-8", "replace").split()) or "no text"


def _tree(kind: type[FednodeError]) -> Iterator[type[FednodeError]]:
    yield kind
    for child in kind.__subclasses__():
        if child is not AskedToWait:
            yield from _tree(child)


_KINDS = {kind.code: kind for kind in _tree(FednodeError)}
