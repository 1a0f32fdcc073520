"""A central node in a world that a seed decides: the real app over the real store, no thread, no socket, no real time.

`WorldLoop` is an event loop whose time jumps to the next timer. What the central node would do in a thread is done
in the loop, at a turn that the seed chooses, and so is the store's writer: every interleaving that threads could make
comes up under some seed, and the same one again under the same seed. `World.kill` is a `kill -9`: the next central
node starts on a copy of the state dir as it was at that instant, whatever the dead one still had in memory.
Who lives in it: `simulated_sites`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import secrets
import selectors
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import anyio.to_thread
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, create_engine

import fednode.store.sql
import fednode.store.sqlite
from fednode.central.app import build_node, create_app, living
from fednode.central.node import CentralNode, CentralSettings
from fednode.store.sql import SqlStore
from fednode.store.writer import Writer

T = TypeVar("T")
START_S = 1_767_225_600.0           # of the world's wall clock
END_OF_TIME_S = 200_000.0           # no test takes longer in the world's time
IN_MEMORY = Path("/dev/shm")        # fsyncs cost nothing here; that they are made is other tests' claim


class Lost(Exception):
    """The caller got no answer: the request may have been done, or not."""


class Stuck(Exception):
    """Nothing is left that could happen, and what was waited for has not."""


@contextmanager
def world(seed: int, template: Path | None = None) -> Iterator[World]:
    """A world over a copy of `template`, an earlier world's state; its central node is not started yet."""
    base = IN_MEMORY if IN_MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="fednode-world-", dir=base) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        if template is not None:
            shutil.copytree(template, Path(folder) / "life-0")
        made = World(seed, Path(folder))
        dice = random.Random(f"secrets {seed}")
        patch.setattr(secrets, "token_bytes", lambda n=32: dice.randbytes(n))
        patch.setattr(secrets, "token_urlsafe", lambda n=32: dice.randbytes(n).hex())
        patch.setattr(anyio.to_thread, "run_sync", _run_here)       # FastAPI's dependencies that are no coroutines
        patch.setattr(fednode.store.sql, "Writer", TurnWriter)
        patch.setattr(fednode.store.sqlite, "create_engine", _engine)
        gc.disable()            # a finaliser at a turn of its own choosing would be chance that no seed decides
        try:
            yield made
        finally:
            made.end()
            gc.enable()


async def _run_here(work: Callable[..., T], *values: Any, **_: Any) -> T:
    return work(*values)


_compiled: list[Engine] = []


def _engine(url: Any) -> Engine:
    """What SQL says is worked out once, not once a life: an engine's statements are kept by its dialect."""
    made = create_engine(url)
    if not _compiled:
        with create_engine("sqlite://").connect() as connection:        # it asks for SQLite's version and the like
            _compiled.append(connection.engine)
    made.dialect, made._compiled_cache = _compiled[0].dialect, _compiled[0]._compiled_cache
    return made


# --- time, threads and chance ---------------------------------------------------------------------


class _Jumps(selectors.SelectSelector):
    """Waits for nothing: lets the loop's time pass instead."""

    loop: WorldLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("no timer is left, and nobody can go on")
        self.loop.now_s += max(0.0, timeout)
        if self.loop.now_s > END_OF_TIME_S:
            raise Stuck(f"{END_OF_TIME_S:,.0f} s have passed, and what was waited for has not come")
        return []


class WorldLoop(asyncio.SelectorEventLoop):
    """Virtual time; work for threads is done in the loop, some turns later, as `chance` says."""

    def __init__(self, chance: random.Random) -> None:
        self.now_s = 0.0
        self.chance = chance
        selector = _Jumps()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Never at once: who waits for less than a double can tell must not wait for ever."""
        return super().call_at(max(when, self.now_s + 1e-6), callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Done here, after 0 to 2 turns of the loop: so other tasks come between, as with a real thread."""
        future = self.create_future()
        self.after_turns(self.chance.randrange(3), partial(_do, future, partial(func, *args), CENTRAL.get()))
        return future

    def after_turns(self, turns: int, callback: Callable[[], None]) -> None:
        if turns:
            self.call_soon(self.after_turns, turns - 1, callback)
        else:
            self.call_soon(callback)


def _do(future: asyncio.Future[Any], work: Callable[[], Any], central: Central | None) -> None:
    found, error = None, None
    if _is_over(central, "thread"):
        future.cancel()                     # this thread never came to its work
        return
    try:
        found = work()
    except Exception as raised:
        error = raised
    if _is_over(central, "thread"):
        future.cancel()                     # done, and nobody heard of it
    elif not future.done() and error is not None:
        future.set_exception(error)
    elif not future.done():
        future.set_result(found)


def _is_over(central: Central | None, where: str) -> bool:
    return central is not None and not central.may_go_on(where)


class WorldClock:
    """`ports.Clock` of the world's time."""

    def __init__(self, loop: WorldLoop) -> None:
        self._loop = loop

    def now_s(self) -> float:
        return self._loop.now_s

    def wall_s(self) -> float:
        return START_S + self._loop.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TurnWriter(Writer):
    """The store's writer without its thread: the same groups, transactions and errors, at a turn of the loop."""

    def __init__(self, engine: Any, *, guard: Any, mark: Any, **told: Any) -> None:
        super().__init__(engine, guard=_may_fail(guard), mark=_may_fail(mark), **told)

    def _write_until_closed(self) -> None:
        """The thread has nothing to do."""

    def _put(self, entry: Any) -> None:
        super()._put(entry)
        loop = self._loop
        assert isinstance(loop, WorldLoop)
        loop.after_turns(loop.chance.randrange(3), partial(self._flush, CENTRAL.get()))

    async def close(self) -> None:
        while not self._queue.empty():
            self._flush(CENTRAL.get())
        self._is_closed = True

    def _flush(self, central: Central | None) -> None:
        if self._queue.empty():
            return
        group, _ = self._next_group()
        mark = 0 if _is_over(central, "commit") else self._commit(group)
        if _is_over(central, "commit"):     # whether it was written or not: nobody hears of it
            for entry in group:
                if entry.future is not None:
                    entry.future.cancel()
            return
        self._tell(mark, group)


def _may_fail(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """The first or the last step of a transaction, at which the world may fill the disk."""

    def failing(connection: Connection) -> T:
        central = CENTRAL.get()
        if central is not None and central.world.is_disk_full():
            raise sqlite3.OperationalError("database or disk is full")
        return work(connection)

    return failing


CENTRAL: ContextVar[Central | None] = ContextVar("CENTRAL", default=None)


# --- a central node ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def said(self) -> str:
        """`409 round_closed`, or the status alone."""
        if self.status < 400 or not self.body:
            return str(self.status)
        return f"{self.status} {self.json['code']}"


@dataclass(kw_only=True)
class Request:
    """`chunks`: the body as it comes, each piece after so many seconds; `is_cut`: the line breaks after the last."""

    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    bearer: str = ""
    chunks: Sequence[tuple[float, bytes]] = ()
    num_bytes: int | None = None        # the Content-Length; None: what comes
    is_cut: bool = False


class Central:
    """One process of a central node: from its start until it is killed or stopped."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.is_ready = False
        self.is_dead = False
        self._stop = asyncio.Event()

    async def start(self) -> None:
        """Raises Lost where it is killed before it answers."""
        ready: asyncio.Future[None] = self.world.loop.create_future()
        self._life = self.spawn(self._live(ready))
        await asyncio.wait({ready, self._life}, return_when=asyncio.FIRST_COMPLETED)
        if self.is_dead:
            raise Lost("killed before it answered")
        if self._life.done():
            self._life.result()
        self.is_ready = True

    async def _live(self, ready: asyncio.Future[None]) -> None:
        state_dir = self.folder / "central"
        self.store = await SqlStore.open(state_dir, self.world.clock)
        settings = CentralSettings(state_dir=state_dir, user_state_dir=self.folder, port=0)
        self.app, node = _built_app(self.store, self.world.clock, settings)
        async with living(node):
            ready.set_result(None)
            await self._stop.wait()
        await self.store.close()

    async def stop(self) -> None:
        """SIGTERM: as it ends in peace."""
        self._stop.set()
        await asyncio.wait({self._life})
        self.die()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process; so are all tasks that it makes."""
        context = copy_context()
        context.run(CENTRAL.set, self)
        return self.world.loop.create_task(work, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        if self.is_dead:
            task.cancel()

    def may_go_on(self, where: str) -> bool:
        """False where this process is dead, or dies at this very point."""
        if not self.is_dead and self.world.is_fatal(where):
            self.world.kill()
        return not self.is_dead

    def die(self) -> None:
        """Nobody hears of it any more, and it hears of nobody."""
        self.is_dead = True
        for task in list(self.tasks):
            task.cancel()

    async def call(self, request: Request) -> Answer:
        """Raises Lost where the process dies meanwhile."""
        task = self.spawn(_serve(self.app, request))
        await asyncio.wait({task})
        if self.is_dead or task.cancelled():
            raise Lost("the central node is dead")
        answer = task.result()
        if answer is None:
            raise Lost("the line broke")
        assert answer.status != 500, (request, answer.body)
        return answer


_built: list[tuple[FastAPI, Any]] = []


def _built_app(store: SqlStore, clock: WorldClock, settings: CentralSettings) -> tuple[Any, CentralNode]:
    """The app with the routes of the first one: to build them takes longer than many a life in these worlds."""
    if not _built:
        app = create_app(store, clock, settings)
        _built.append((app, app.user_middleware.pop()))
    app, gate = _built[0]
    app.state.node = node = build_node(store, clock, settings)
    return gate.cls(app, doors=node.doors, num_unwritten=store.num_unwritten), node


async def _serve(app: Any, request: Request) -> Answer | None:
    """One request through the app; None where no answer came."""
    body = b"".join(piece for _, piece in request.chunks)
    headers = [(b"host", b"127.0.0.1:5000"), (b"content-type", b"application/json")]
    if request.bearer:
        headers.append((b"authorization", f"Bearer {request.bearer}".encode()))
    length = len(body) if request.num_bytes is None else request.num_bytes
    if request.method != "GET":
        headers.append((b"content-length", str(length).encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method,
        "scheme": "http", "path": request.path, "raw_path": request.path.encode(),
        "query_string": urlencode(request.query).encode(), "headers": headers, "root_path": "",
        "client": ("127.0.0.1", 40_000), "server": ("127.0.0.1", 5000),
    }
    pieces = list(request.chunks) or [(0.0, b"")]
    heard: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pieces:
            delay_s, piece = pieces.pop(0)
            if delay_s:
                await asyncio.sleep(delay_s)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces) or request.is_cut}
        if not request.is_cut:
            await asyncio.Event().wait()    # the caller stays on the line
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    await app(scope, receive, send)
    if not heard or request.is_cut:
        return None
    told = {name.decode().lower(): value.decode() for name, value in heard[0]["headers"]}
    said = b"".join(bytes(message.get("body", b"")) for message in heard[1:])
    return Answer(status=heard[0]["status"], headers=told, body=said)


# --- the world --------------------------------------------------------------------------------------


class World:
    """The time, the chance, and the central node that is up now, if one is."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.loop = WorldLoop(random.Random(f"turns {seed}"))
        self.loop.set_task_factory(self._new_task)
        self.clock = WorldClock(self.loop)
        self.central: Central | None = None
        self.died = asyncio.Event()             # set: no central node is up
        self.died.set()
        self.num_kills = 0
        self.num_full = 0                       # transactions that found the disk full
        self.fatal: dict[str, int] = {}         # kind of point -> the central node dies at the so many-th from now
        self.full_steps: list[int] = []         # likewise: the steps of transactions, from now, that find it full
        self._folder = folder
        self._num_lives = 0

    @property
    def state_dir(self) -> Path:
        """As the central node that is up now has it, or the next one will."""
        return self._folder / f"life-{self._num_lives}" / "central"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Time passes only while nobody can go on."""
        return self.loop.run_until_complete(work)

    # --- the central node's life and death ------------------------------------------------------------

    async def start(self) -> None:
        """A central node on what the disk holds. Raises Lost where it is killed before it answers."""
        assert self.central is None
        self.central = central = Central(self, self._folder / f"life-{self._num_lives}")
        self.died.clear()
        await central.start()

    async def stop(self) -> None:
        """In peace, as by SIGTERM."""
        central, self.central = self.central, None
        assert central is not None
        await central.stop()
        self.died.set()

    def kill(self) -> None:
        """`kill -9`: what is on disk now is all that is left."""
        central, self.central = self.central, None
        assert central is not None
        self.num_kills += 1
        self._num_lives += 1
        copied = self._folder / f"life-{self._num_lives}"
        shutil.copytree(central.folder, copied, ignore=shutil.ignore_patterns("*-shm", "lock"))
        central.die()
        self.died.set()

    def is_fatal(self, where: str) -> bool:
        """Whether the central node dies at this point, which it has come to now."""
        self.fatal = {kind: left - (kind == where) for kind, left in self.fatal.items()}
        if self.fatal.get(where, 1) > 0:
            return False
        self.fatal = {}
        return True

    def is_disk_full(self) -> bool:
        self.full_steps = [left - 1 for left in self.full_steps if left > 0]
        is_full = 0 in self.full_steps
        self.num_full += is_full
        return is_full

    async def call(self, request: Request) -> Answer:
        """Raises Lost where no central node is up, or it dies before its answer."""
        if self.central is None or not self.central.is_ready:
            raise Lost("nobody answers")
        return await self.central.call(request)

    def end(self) -> None:
        """Of the world: nothing that still waits in it comes to anything."""
        if self.central is not None:
            self.central.die()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(100):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()

    def _new_task(self, loop: Any, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
        """Each task knows whose it is: it inherits that from the one that made it."""
        central = CENTRAL.get() if context is None else context.get(CENTRAL)
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        if central is not None:
            central.adopt(task)
        return task
