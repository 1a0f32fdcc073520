"""The client's own page: what this node does and what left it, for its owner, on this machine alone. Start at `show`.

It reads `Snapshot`, `Transcript` and `Ledger`, turns the `Sharing` switch and decides `Approvals`; the daemon knows
nothing of it. Plain HTML that asks for its living part every second; `/status.json` says the same to programs.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fednode.client.approvals import Approvals, Verdict
from fednode.client.ledger import Ledger
from fednode.client.sharing import Sharing
from fednode.client.snapshot import Transcript, Watcher
from fednode.client.view import View, local_time, main_score, round_text
from fednode.core.policy import Policy
from fednode.errors import FednodeError, NotFound, PortTaken, UsageError
from fednode.ports import Clock
from fednode.web.callers import is_foreign_act, why_not_local
from fednode.web.connections import Connections, Limits
from fednode.web.headers import SECURITY_HEADERS, cache_rule, whole_files
from fednode.web.look import STATIC_DIR, environment

HOST = "127.0.0.1"              # never beyond this machine: there is no sign-in
BACKLOG = 64
MAX_CONNECTIONS = 128
DRAIN_S = 1                     # for requests under way at the end
SEE_OTHER = 303

templates = environment(Path(__file__).parent / "templates")
templates.filters |= {"clock": local_time, "round": round_text, "main_score": main_score}


@dataclass(frozen=True, kw_only=True)
class Page:
    """The routes, over what there is to show."""

    watcher: Watcher
    transcript: Transcript
    ledger: Ledger
    sharing: Sharing
    clock: Clock
    policy: Policy = field(default_factory=Policy)
    approvals: Approvals | None = None      # None: nothing is approved by hand

    def app(self) -> ASGIApp:
        routes = [
            Route("/", self.whole), Route("/live", self.live), Route("/status.json", self.status),
            Route("/healthz", self.health), Route("/pause", self.pause, methods=["POST"]),
            Route("/resume", self.resume, methods=["POST"]), Route("/approve/{key}", self.approve, methods=["POST"]),
            Route("/refuse/{key}", self.refuse, methods=["POST"]),
            Mount("/static", whole_files(StaticFiles(directory=STATIC_DIR))),
        ]
        return OwnersOnly(Starlette(routes=routes, exception_handlers={HTTPException: _told, FednodeError: _refused}))

    async def whole(self, request: Request) -> Response:
        return HTMLResponse(templates.get_template("own.html").render(view=self._view()))

    async def live(self, request: Request) -> Response:
        return HTMLResponse(templates.get_template("own_live.html").render(view=self._view()))

    async def status(self, request: Request) -> Response:
        return JSONResponse(self._view().to_json())

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def pause(self, request: Request) -> Response:
        self.sharing.pause(is_now="now" in request.query_params)
        return RedirectResponse("/", SEE_OTHER)

    async def resume(self, request: Request) -> Response:
        self.sharing.resume()
        return RedirectResponse("/", SEE_OTHER)

    async def approve(self, request: Request) -> Response:
        return self._decided(request, Verdict.APPROVED)

    async def refuse(self, request: Request) -> Response:
        return self._decided(request, Verdict.REFUSED)

    def _decided(self, request: Request, verdict: Verdict) -> Response:
        """Of the very source that was looked at: its sha256 is in the address."""
        if self.approvals is None:
            raise NotFound("this site approves nothing by hand", fix='write approve = "by-hand" into its policy')
        self.approvals.decide(request.path_params["key"], verdict)
        return RedirectResponse("/", SEE_OTHER)

    def _view(self) -> View:
        snapshot = self.watcher.snapshot
        return View(
            snapshot=snapshot, lines=self.transcript.lines, left=self.ledger.left, policy=self.policy,
            ledger_trouble=self.ledger.trouble, switch=self.sharing.switch, now_s=self.clock.wall_s(),
            reviews=tuple(map(self.approvals.review, snapshot.codes)) if self.approvals else (),
        )


class OwnersOnly:
    """The outermost layer: refuses whoever is not of this machine, and says to browsers what the page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", cache_rule(scope["path"], scope["query_string"]))
            await send(message)

        answer = _refusal(scope["method"], Headers(scope=scope))
        await (answer or self._app)(scope, receive, guarded)


def _refusal(method: str, headers: Headers) -> Response | None:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return _error(400, "usage", f"a request has one Host header, this one has {len(hosts)}", "send one")
    reason = why_not_local(headers) or (is_foreign_act(method, headers) and "another site's page made the request")
    if reason:
        return _error(403, "not_authorised", f"this page is for its own machine: {reason}", "open it at localhost")
    return None


async def _told(request: Request, error: Exception) -> Response:
    """What the router, or a file that is not there, has to say."""
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == HTTPStatus.NOT_FOUND else "usage"
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    answer = _error(error.status_code, code, message, "the page is at /, its facts at /status.json")
    answer.headers.update(error.headers or {})
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    """What was asked for cannot be, or could not be written down."""
    assert isinstance(error, FednodeError)
    return _error(error.http_status, error.code, error.message, error.fix)


def _error(status: int, code: str, message: str, fix: str) -> Response:
    return JSONResponse({"code": code, "message": message, "fix": fix}, status)


# --- the port ---------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    """The bound socket; 0: a port that is free. Raises PortTaken, UsageError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port}, for the client's own page, is in use", fix="choose another with --port, or go without"
            ) from error
        raise UsageError(
            f"the client's own page cannot have port {port}: {error.strerror}", fix="choose a --port above 1023"
        ) from error


@asynccontextmanager
async def show(page: Page, listening: socket.socket) -> AsyncIterator[None]:
    """Answer at that socket while this holds."""
    web = _Uvicorn(uvicorn.Config(
        page.app(), log_config=None, access_log=False, lifespan="off", ws="none", server_header=False,
        http=Connections(Limits(max_connections=MAX_CONNECTIONS)).protocol,  # type: ignore[arg-type]
        timeout_graceful_shutdown=DRAIN_S,
    ))
    answering = asyncio.create_task(web.serve(sockets=[listening]))
    try:
        yield
    finally:
        web.should_exit = True
        await asyncio.wait({answering})
        listening.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its hold on signals: those are the daemon's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
