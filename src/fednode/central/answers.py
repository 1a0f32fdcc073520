"""The one shape of every error, {code, message, fix}, whoever found it: we, the router, or the validation of a body.

How it is told, to a program or to a person at a browser: `error_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match

from fednode.errors import FednodeError

SEE_API = "see /openapi.json for what there is"
UNAUTHORISED = 401


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as it is told."""

    status: int
    code: str
    message: str
    fix: str
    headers: Mapping[str, str] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)     # of the request: what is wrong with each

    @property
    def body(self) -> dict[str, Any]:
        told = {"code": self.code, "message": _short(self.message), "fix": _short(self.fix)}
        fields = {name: _short(wrong) for name, wrong in islice(self.fields.items(), MAX_FIELDS)}
        return told | {"fields": fields} if len(fields) > 1 else told


# What the caller hears of a mistake of ours: nothing of its insides.
INTERNAL = Problem(
    status=500, code="internal", message="the central node failed to answer; what happened is in its log",
    fix="try again; if it happens again, look at the log of the central node",
)
# A disk is not made empty in a moment, but clients need nobody to tell them that it was.
_HEADERS: Mapping[int, Mapping[str, str]] = {UNAUTHORISED: {"WWW-Authenticate": "Bearer"}, 507: {"Retry-After": "10"}}
MAX_TOLD, MAX_FIELDS = 2_000, 20        # characters of one sentence; sentences of one answer
METHODS = ("GET", "HEAD", "POST", "PUT")


class Refusal(HTTPException):
    """A refusal of HTTP's own making, such as a body without a length."""

    def __init__(
        self, status: int, code: str, message: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail=message, headers=headers)
        self.code = code
        self.fix = fix


def problem_of(error: Exception, connection: HTTPConnection) -> Problem:
    """What there is to tell of `error`."""
    if isinstance(error, FednodeError):
        headers = _HEADERS.get(error.http_status)
        return Problem(
            status=error.http_status, code=error.code, message=error.message, fix=error.fix, headers=headers,
            fields=error.fields,
        )
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return _of_http(error, connection)
    return INTERNAL


def _of_validation(error: RequestValidationError) -> Problem:
    """The fields that are wrong, by name; the first of them in words."""
    errors: Sequence[Any] = error.errors()[:MAX_FIELDS]
    told = {_path(wrong["loc"]): wrong["msg"] for wrong in reversed(errors)}
    first = _path(errors[0]["loc"])
    return Problem(
        status=422, code="usage", message=f"{first}: {told[first]}", fix=f"correct {first!r}; {SEE_API}", fields=told
    )


def _path(loc: Sequence[Any]) -> str:
    place, *path = loc
    return _short(".".join(str(part) for part in path) or str(place), 100)


def _short(text: str, most: int = MAX_TOLD) -> str:
    """What a caller sent comes back in what it is told: not megabytes of it."""
    return text if len(text) <= most else f"{text[:most]}..."


def _of_http(error: HTTPException, connection: HTTPConnection) -> Problem:
    path, status = connection.scope["path"], error.status_code
    if isinstance(error, Refusal):
        return Problem(
            status=status, code=error.code, message=error.detail, fix=error.fix, headers=error.headers
        )
    message, headers = error.detail, error.headers
    if status == 404:
        message = f"there is nothing at {path}"
    elif status == 405:
        message, headers = f"{path} does not take {connection.scope['method']}", {"Allow": _allowed(connection)}
    code = "not_found" if status == 404 else "usage"
    return Problem(status=status, code=code, message=message, fix=SEE_API, headers=headers)


def _allowed(connection: HTTPConnection) -> str:
    """All methods that the path takes: the router names those of its first route there."""
    scope, routes = connection.scope, connection.app.routes
    if published := connection.app.openapi()["paths"].get(scope["path"]):
        return ", ".join(map(str.upper, published))     # what a name in its place would take as well is no matter
    taken = [
        method for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(taken) or "GET, HEAD"      # of files
