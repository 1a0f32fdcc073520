"""Sign in: the operator token once, by address or by form; from then on a cookie. And out again.

Open to everybody: who comes here has nothing to show yet. What the cookie holds is made in `tokens`, who must have one
is decided in `auth`.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fednode.central.node import CentralNode, Node, Operator
from fednode.central.pages.frame import SEE_OTHER, fragment
from fednode.central.tokens import SEAL_DAYS, SECONDS_OF_A_DAY
from fednode.errors import NotAuthorised

HOME = "/"
# A path of ours. Not //host; and browsers read \ as /, and drop tabs and line ends.
_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
async def sign_in(
    request: Request, node: Node, token: str = "", wanted: Annotated[str, Query(alias="next")] = HOME
) -> Response:
    """By the address that the central node prints, else the form. Who needs neither goes on."""
    if token:
        return _admit(node, token, wanted)
    if node.doors.is_operator(request):
        return _to(wanted)
    return _form(wanted)


@router.post("/sign-in")
async def show_token(
    node: Node, token: Annotated[str, Form()] = "", wanted: Annotated[str, Form(alias="next")] = HOME
) -> Response:
    """The form's answer."""
    return _admit(node, token, wanted)


@router.post("/sign-out", dependencies=[Operator])
async def sign_out(node: Node) -> Response:
    """This browser forgets; others stay signed in."""
    answer = _to("/sign-in")
    answer.delete_cookie(node.doors.tokens.cookie_name)
    return answer


def _admit(node: CentralNode, token: str, wanted: str) -> Response:
    """To where the browser wanted to go, with its cookie; the token stays out of the address bar."""
    tokens = node.doors.tokens
    try:
        tokens.require_operator(token.strip())
    except NotAuthorised as error:
        return _form(wanted, error)
    answer = _to(wanted)
    answer.set_cookie(
        tokens.cookie_name, tokens.seal(), max_age=int(SEAL_DAYS * SECONDS_OF_A_DAY), path="/",
        secure=node.settings.is_encrypted, httponly=True, samesite="strict",
    )
    return answer


def _form(wanted: str, problem: NotAuthorised | None = None) -> Response:
    html = fragment("sign_in.html", next=_local(wanted), problem=problem, days=SEAL_DAYS)
    return HTMLResponse(html, problem.http_status if problem else 200)


def _to(wanted: str) -> RedirectResponse:
    return RedirectResponse(_local(wanted), SEE_OTHER)


def _local(wanted: str) -> str:
    """`wanted`, where it is a path here: a link to this page must not lead elsewhere."""
    return wanted if _LOCAL.fullmatch(wanted) else HOME
