"""The one shape of every error: {code, message, fix}, whoever found it: we, the router, or the validation of a body."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from fednode.errors import FednodeError

SEE_API = "see /openapi.json for what there is"
_INTERNAL = (
    "internal", "the central node failed to answer; what happened is in its log",
    "try again; if it happens again, look at the log of the central node",
)


class Refusal(HTTPException):
    """A refusal of HTTP's own making, such as a body without a length."""

    def __init__(
        self, status: int, code: str, message: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail=message, headers=headers)
        self.code = code
        self.fix = fix


def error_body(code: str, message: str, fix: str) -> dict[str, str]:
    return {"code": code, "message": message, "fix": fix}


def internal_error() -> JSONResponse:
    """What the caller hears of a mistake of ours: nothing of its insides."""
    return JSONResponse(error_body(*_INTERNAL), 500)


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: None stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def add_error_answers(app: FastAPI) -> None:
    app.add_exception_handler(FednodeError, _fednode_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


def of_fednode_error(error: FednodeError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    return JSONResponse(error_body(error.code, error.message, error.fix), error.http_status, headers)


def of_refusal(error: Refusal) -> JSONResponse:
    return JSONResponse(error_body(error.code, error.detail, error.fix), error.status_code, error.headers)


async def _fednode_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FednodeError)
    return of_fednode_error(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first field that is wrong, by name."""
    assert isinstance(error, RequestValidationError)
    errors: Sequence[Any] = error.errors()
    place, *path = errors[0]["loc"]
    field = ".".join(str(part) for part in path) or str(place)
    if errors[0]["type"] == "json_invalid":
        return _no_json()
    message = f"{field}: {errors[0]['msg']}"
    return JSONResponse(error_body("usage", message, f"correct {field!r}; {SEE_API}"), 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refusal):
        return of_refusal(error)
    if error.status_code == 400:
        return _no_json()           # the framework's only reason: bytes that are no text
    code, message, fix = _of_status(error.status_code, request, error.detail)
    return JSONResponse(error_body(code, message, fix), error.status_code, error.headers)


def _no_json() -> JSONResponse:
    return JSONResponse(error_body("usage", "the body is no JSON", "send a JSON object"), 422)


def _of_status(status: int, request: Request, detail: str) -> tuple[str, str, str]:
    path = request.url.path
    if status == 404:
        return "not_found", f"there is nothing at {path}", SEE_API
    if status == 405:
        return "usage", f"{path} does not take {request.method}", SEE_API
    return "usage", detail, SEE_API
