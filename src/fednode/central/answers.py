"""The one shape of every error, {code, message, fix}, whoever found it: we, the router, or the validation of a body.

How it is told, to a program or to a person at a browser: `error_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

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
        told = {"code": self.code, "message": self.message, "fix": self.fix}
        return told | {"fields": dict(self.fields)} if len(self.fields) > 1 else told


# What the caller hears of a mistake of ours: nothing of its insides.
INTERNAL = Problem(
    status=500, code="internal", message="the central node failed to answer; what happened is in its log",
    fix="try again; if it happens again, look at the log of the central node",
)
_NO_JSON = Problem(status=422, code="usage", message="the body is no JSON", fix="send a JSON object")


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
        headers = {"WWW-Authenticate": "Bearer"} if error.http_status == UNAUTHORISED else None
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
    errors: Sequence[Any] = error.errors()
    if errors[0]["type"] == "json_invalid":
        return _NO_JSON
    told = {_path(wrong["loc"]): wrong["msg"] for wrong in reversed(errors)}
    first = _path(errors[0]["loc"])
    return Problem(
        status=422, code="usage", message=f"{first}: {told[first]}", fix=f"correct {first!r}; {SEE_API}", fields=told
    )


def _path(loc: Sequence[Any]) -> str:
    place, *path = loc
    return ".".join(str(part) for part in path) or str(place)


def _of_http(error: HTTPException, connection: HTTPConnection) -> Problem:
    path, status = connection.scope["path"], error.status_code
    if isinstance(error, Refusal):
        return Problem(
            status=status, code=error.code, message=error.detail, fix=error.fix, headers=error.headers
        )
    if status == 400:
        return _NO_JSON         # the framework's only reason: bytes that are no text
    message = error.detail
    if status == 404:
        message = f"there is nothing at {path}"
    elif status == 405:
        message = f"{path} does not take {connection.scope['method']}"
    code = "not_found" if status == 404 else "usage"
    return Problem(status=status, code=code, message=message, fix=SEE_API, headers=error.headers)
