"""The process of a central node: its port, its store, its signals, and the note by which its user's clients find it.

`serve` returns when SIGTERM, SIGINT or `stop` has ended it: long-polls are answered at once, no new round begins, open
rounds stay open in the store. Nothing is printed here: `on_ready` hears what there is to tell.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from fednode.central.addresses import lan_url, local_url
from fednode.central.app import create_app, living
from fednode.central.certificate import Certificate
from fednode.central.node import CentralNode, CentralSettings
from fednode.central.tokens import drop_half_written, write_private
from fednode.clock import SystemClock
from fednode.errors import PortTaken, UsageError
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.settings import note_path
from fednode.store.sql import SqlStore
from fednode.web.connections import Connections, Limits
from fednode.wire.codec import disk_errors

__all__ = ["CentralSettings", "Serving", "serve"]

DRAIN_S = 8                     # for requests that are under way; then they are cut
FILES_OF_A_CONNECTION = 3       # its socket, its update while that is aggregated, and room for the others
BACKLOG = 2048
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
COLLECT_EVERY = 10_000, 20, 20   # new objects, collections of young ones, of older ones
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A central node that answers now."""

    url: str                    # for this machine
    public_url: str             # for others, as far as this machine can know
    host: str
    port: int
    state_dir: Path
    join_token: str
    operator_token: str
    is_for_this_machine: bool   # else a browser signs in, and others may come
    is_clear: bool              # what goes by can be read on the way
    certificate: Certificate | None

    @property
    def sign_in_url(self) -> str:
        """Opened once in a browser, it signs that browser in."""
        return f"{self.public_url}/sign-in?token={self.operator_token}"


def _say_nothing(serving: Serving) -> None: ...


async def serve(
    settings: CentralSettings, on_ready: Callable[[Serving], None] = _say_nothing, *,
    clock: Clock | None = None, stop: asyncio.Event | None = None,
) -> None:
    """Be a central node until told to stop.

    Raises UsageError (a bind beyond loopback without `is_insecure`, a wrong database), PortTaken, StoreLocked,
    StoreDamaged, StoreAway, NotAuthorised.
    """
    clock = clock or SystemClock()
    tune_malloc()
    _raise_file_limit()
    listening = listen(settings)
    try:
        store = await SqlStore.open(settings.state_dir, clock, settings.database)
        try:
            await _serve(settings, store, clock, listening, on_ready, stop or asyncio.Event())
        finally:
            await store.close()
    finally:
        listening.close()


def listen(settings: CentralSettings) -> socket.socket:
    """The bound socket. Raises UsageError, PortTaken."""
    host = settings.host.strip("[]")
    if _is_clear(settings) and not settings.is_insecure:
        raise UsageError(
            f"--host {settings.host} can be reached from other machines, and what goes by can be read on the way: "
            "there is no TLS here",
            fix="give --tls-cert and --tls-key, or put a TLS proxy in front of --host 127.0.0.1, "
            "or add --insecure if that network is yours",
        )
    try:
        found = socket.getaddrinfo(host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = sorted(found, key=lambda row: row[0] != socket.AF_INET)[0]
        listening = socket.socket(family, kind, proto)
        with _closed_on_error(listening):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)       # from here on nobody else can have the port
        return listening
    except OSError as error:
        raise _cannot_bind(settings, error) from error


async def _serve(
    settings: CentralSettings, store: SqlStore, clock: Clock, listening: socket.socket,
    on_ready: Callable[[Serving], None], stop: asyncio.Event,
) -> None:
    app = create_app(store, clock, settings)
    node: CentralNode = app.state.node
    web = _Uvicorn(app, node)
    serving = _facts(settings, node, listening)
    _tune_collector()
    with _stopped_by_signals(stop), _note(settings, serving):
        async with living(node):
            await _answer_until(stop, store, web, listening, lambda: on_ready(serving))


async def _answer_until(
    stop: asyncio.Event, store: SqlStore, web: _Uvicorn, listening: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Raises StoreLocked where another central node took the store over."""
    answering = asyncio.create_task(web.serve(sockets=[listening]))
    waiting, taken = asyncio.create_task(stop.wait()), asyncio.create_task(store.wait_until_taken())
    try:
        await web.wait_until_ready(answering)
        if web.started:
            on_ready()
        await asyncio.wait({answering, waiting, taken}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        taken.cancel()
        web.should_exit = True
        await answering
    if taken.done() and not taken.cancelled():
        raise taken.result()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its hold on signals, and with long-polls that end before it waits for them."""

    def __init__(self, app: object, node: CentralNode) -> None:
        tls = node.settings.certificate
        super().__init__(uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_config=None, access_log=False, lifespan="off", ws="none", server_header=False, backlog=BACKLOG,
            proxy_headers=False,        # what a proxy says of itself is for the doors to judge
            http=Connections(_room(node.settings)).protocol,  # type: ignore[arg-type]
            timeout_graceful_shutdown=DRAIN_S,
            ssl_certfile=None if tls is None else tls.cert_path, ssl_keyfile=None if tls is None else tls.key_path,
        ))
        self._node = node
        self._ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._node.close_doors()
        reach("doors.closed")
        await super().shutdown(sockets)

    async def wait_until_ready(self, answering: asyncio.Task[None]) -> None:
        """Until it answers; a start that fails ends `answering`."""
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, answering}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, where signals can be heard at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextmanager
def _note(settings: CentralSettings, serving: Serving) -> Iterator[None]:
    """What clients and the CLI of the same user read to find this central node; gone with it."""
    path = note_path(settings.user_state_dir, serving.port)
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    drop_half_written(path)
    write_private(path, {
        "url": serving.url, "join_token": serving.join_token, "operator_token": serving.operator_token,
        "pid": os.getpid(), "certificate": serving.certificate.pem if serving.certificate else "",
    })
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def _facts(settings: CentralSettings, node: CentralNode, listening: socket.socket) -> Serving:
    port = listening.getsockname()[1]
    tokens = node.doors.tokens
    return Serving(
        url=local_url(settings.scheme, settings.host, port),
        public_url=settings.public_url or lan_url(settings.host, port, settings.certificate),
        host=settings.host, port=port, state_dir=settings.state_dir,
        join_token=tokens.join_token, operator_token=tokens.operator_token,
        is_for_this_machine=settings.is_for_this_machine, is_clear=_is_clear(settings),
        certificate=settings.certificate,
    )


def _is_clear(settings: CentralSettings) -> bool:
    """Whether something leaves this machine as it is. A proxy in front answers for its own half of the way."""
    return not settings.is_loopback and settings.certificate is None


@contextmanager
def _closed_on_error(listening: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listening.close()
        raise


def _cannot_bind(settings: CentralSettings, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {settings.port} of {settings.host} is in use", fix="choose another with --port, or stop what has it"
        )
    if error.errno == errno.EACCES:
        return PortTaken(
            f"port {settings.port} may not be opened by this user", fix="choose a --port above 1023"
        )
    return UsageError(
        f"cannot listen at {settings.host}, port {settings.port}: {error.strerror}",
        fix="name an address of this machine by --host",
    )


def tune_malloc() -> None:
    """Keep freed memory for the next body: else every 256 KB read of an upload asks the kernel for new pages.

    In two places at most: else each thread keeps its own, and every one that works for the first time is growth.
    """
    with suppress(OSError, AttributeError):     # not every C library has it
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 8 * MEBIBYTE)
        libc.mallopt(M_TRIM_THRESHOLD, 256 * MEBIBYTE)
        libc.mallopt(M_ARENA_MAX, 2)


def _tune_collector() -> None:
    """What is loaded by now stays: it need not be looked at again for each thousand of requests that are under way."""
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


def _room(settings: CentralSettings) -> Limits:
    """The limits of its connections, as far as this process may open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(settings.limits.max_connections, files // FILES_OF_A_CONNECTION)
    of_address = most if settings.public_url else settings.limits.max_of_address    # a proxy brings everybody
    return replace(settings.limits, max_connections=most, max_of_address=of_address)


def _raise_file_limit() -> None:
    """Up to what the system allows: every update of a cohort is a mapped file while it is aggregated."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
