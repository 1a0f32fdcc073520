"""How an error is told: as JSON to programs, as a small page to a person at a browser, who may have to sign in first.

What is told: `answers`.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from fednode.central.answers import SEE_API, UNAUTHORISED, Problem, problem_of
from fednode.central.auth import ONLY_READ, bearer_of
from fednode.central.pages.frame import SEE_OTHER, fragment
from fednode.errors import FednodeError

SIGN_IN = "/sign-in"
_TITLES = {401: "Not signed in", 404: "Nothing here", 422: "That cannot be done", 500: "Something went wrong"}


def add_error_answers(app: FastAPI) -> None:
    for kind in (FednodeError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request)
    if problem.status == UNAUTHORISED and _may_sign_in(request):
        return _led_to_sign_in(problem, request)
    return told(problem, request)


def told(problem: Problem, connection: HTTPConnection) -> Response:
    """The problem, for whoever made this request."""
    if not is_for_person(connection):
        return JSONResponse(problem.body, problem.status, problem.headers)
    return error_page(problem)


def error_page(problem: Problem, *, again: str = "") -> Response:
    """`again`: the address that the browser is to load at once, from this page and so as one of ours."""
    facts = {
        "title": _TITLES.get(problem.status, "That did not work"), "message": problem.message,
        "fix": "" if SEE_API in problem.fix else problem.fix, "again": again,
        "can_sign_in": problem.status == UNAUTHORISED,
    }
    return HTMLResponse(fragment("error.html", **facts), problem.status, problem.headers)


def is_for_person(connection: HTTPConnection) -> bool:
    """Whether a page is wanted. Our own scripts and the API's callers read JSON, whatever else they take."""
    headers = connection.headers
    is_page = "text/html" in headers.get("accept", "") and "hx-request" not in headers
    return is_page and not connection.scope["path"].startswith("/api/")


def _may_sign_in(connection: HTTPConnection) -> bool:
    """What would have changed something cannot be repeated by a redirect."""
    is_read = connection.scope["method"] in ONLY_READ
    return is_read and is_for_person(connection) and not bearer_of(connection)


def _led_to_sign_in(problem: Problem, connection: HTTPConnection) -> Response:
    """To the form. But who comes by another site's link may be signed in: its browser says so to our own pages only."""
    here = _address(connection)
    if _is_from_elsewhere(connection):
        return error_page(problem, again=here)
    return RedirectResponse(f"{SIGN_IN}?next={quote(here, safe='')}", SEE_OTHER)


def _is_from_elsewhere(connection: HTTPConnection) -> bool:
    """Whether another site caused this request. After `again` it is not so, whatever a proxy made of our name."""
    headers = connection.headers
    if site := headers.get("sec-fetch-site"):
        return site == "cross-site"
    try:
        came_from = urlsplit(headers.get("referer", ""))
    except ValueError:
        return True
    is_again = _path_and_query(came_from.path, came_from.query) == _address(connection)
    return came_from.netloc not in ("", headers.get("host", "")) and not is_again


def _address(connection: HTTPConnection) -> str:
    """As it was asked for, without the host."""
    scope = connection.scope            # not its URL, which a strange Host would spoil
    return _path_and_query(scope["raw_path"].decode("ascii"), scope["query_string"].decode("latin-1"))


def _path_and_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path
