"""What a request's body must be before anybody reads it: its type, its size, and one JSON text or one form in bounds.

Bodies of updates pass as they are: `wire/body_check.py` and `uploads` look after them; so do files of pictures, which
`predictions_api` reads once it knows who sends them. What the fields must be says `wire/messages.py`.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from fednode.central.answers import Refusal
from fednode.core.json import read_json

MAX_JSON_BYTES = 1 << 20
MAX_PRESENCE_BYTES = 4 << 20            # offers carry schemas
MAX_FILE_BYTES = 16 << 20               # of a picture; the largest of the chest X-rays has 1.6 MB
PRESENCE_PATH = "/api/v1/clients/me"
NO_BODY = ("GET", "HEAD", "OPTIONS")
JSON, FORM, FILE = "application/json", "application/x-www-form-urlencoded", "application/octet-stream"
_BODY_OF_UPDATE = re.compile(r"/api/v1/assignments/[^/]+/update")
_BODY_OF_FILE = re.compile(r"/api/v1/models/[^/]+/predictions/file")
_NUL_IN_FORM = re.compile(rb"%00|\x00")


def is_update(scope: Scope) -> bool:
    """Whether this is a body that streams to a file, measured by its announcement."""
    return scope["method"] == "PUT" and _BODY_OF_UPDATE.fullmatch(scope["path"]) is not None


def announces_update(scope: Scope) -> bool:
    """Whether such a body will follow as soon as this is answered."""
    return scope["method"] == "POST" and _BODY_OF_UPDATE.fullmatch(scope["path"]) is not None


def is_file(scope: Scope) -> bool:
    """Whether this body is a file of a picture, which nobody reads before the sender is known."""
    return scope["method"] == "POST" and _BODY_OF_FILE.fullmatch(scope["path"]) is not None


def require_body(scope: Scope) -> None:
    """By what the headers say of the body: raises Refusal before a byte of it is read."""
    headers = Headers(scope=scope)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(
            415, "usage", "a body with a Content-Encoding", "send it as it is", {"Accept-Encoding": "identity"}
        )
    if is_update(scope) or not _has_body(headers):
        return
    if int(headers.get("content-length", 0)) > _limit(scope):
        raise _too_large(_limit(scope))
    if scope["method"] in NO_BODY:
        return                          # it means nothing, and nobody reads it
    wanted, said = _media_type(scope), headers.get("content-type", "")
    if said.partition(";")[0].strip().lower() != wanted:
        raise Refusal(
            415, "usage", f"a body of the type {said[:100]!r}", f"send {wanted}",
            {"Accept-Post": wanted} if scope["method"] == "POST" else None,
        )


async def checked(scope: Scope, receive: Receive) -> Receive:
    """`receive`, for the app behind: where a body is JSON or a form, whole and found to be one. Raises Refusal."""
    if is_update(scope) or is_file(scope) or scope["method"] in NO_BODY or not _has_body(Headers(scope=scope)):
        return receive
    body = await read_whole(receive, _limit(scope))
    if _media_type(scope) == JSON:
        _require_json(body)
    elif _NUL_IN_FORM.search(body):
        raise Refusal(400, "usage", "the form holds the character NUL", "send it without")
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def read_whole(receive: Receive, limit: int) -> bytes:
    """The body. Raises Refusal as soon as more than `limit` bytes have come."""
    pieces, num_bytes, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
        num_bytes += len(pieces[-1])
        if num_bytes > limit:
            raise _too_large(limit)
    return b"".join(pieces)


def _require_json(body: bytes) -> None:
    if not body:
        return                          # where a body may be left out; else its fields are missing
    try:
        read_json(body)
    except ValueError as error:
        raise Refusal(422, "usage", f"the body cannot be read: {error}", "send one JSON object") from None


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in headers


def _limit(scope: Scope) -> int:
    if is_file(scope):
        return MAX_FILE_BYTES
    return MAX_PRESENCE_BYTES if scope["path"] == PRESENCE_PATH else MAX_JSON_BYTES


def _media_type(scope: Scope) -> str:
    if is_file(scope):
        return FILE
    return JSON if scope["path"].startswith("/api/") else FORM


def _too_large(limit: int) -> Refusal:
    fix = "send the picture smaller" if limit == MAX_FILE_BYTES else "send less: params go by PUT"
    return Refusal(413, "too_large", f"a body of more than {limit:,} bytes", fix)
