"""Where simulated visits are executed: in the calling process, or in several child processes side by side.

Both run the same `visit.run_visit`, so both give the same bits. Updates are held in memory, as one process
holds them anyway. Who visits whom and when is `fleet.py`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, cast

from fednode.child.child import Child
from fednode.core.json import JsonObject, canonical_json
from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.records import Failure, Offer, Outcome
from fednode.core.status import FailureCode
from fednode.ports import Clock
from fednode.tasks.base import Site, Task
from fednode.tasks.devices import placed
from fednode.tasks.registry import TaskType, offer_of
from fednode.tasks.state_dirs import StateDir
from fednode.visit import Observer, Order, run_visit
from fednode.wire.codec import write_params

SHARED_MEMORY = Path("/dev/shm")
MANY = 64                       # files of a model's size that shared memory must have room for

T = TypeVar("T")


class Workplace(Protocol):
    """Executes up to `size` visits at a time."""

    size: int

    async def offer(self, site: Site) -> Offer:
        """Load the task and check the site's data. Raises what the task raises."""
        ...

    async def visit(
        self, order: Order, site: Site, params: Params | None, observer: Observer, state: StateDir
    ) -> Outcome:
        """Execute one visit. `observer` is called in this event loop, but for `is_cancelled`."""
        ...

    async def close(self) -> None: ...


class ThisProcess:
    """One visit at a time, in a thread of the calling process."""

    def __init__(self, task: TaskType) -> None:
        self.size = 1
        self._task = task
        self._bound: dict[str, Task] = {}

    async def offer(self, site: Site) -> Offer:
        return await in_thread(lambda: offer_of(self._task, placed(site)))

    async def visit(
        self, order: Order, site: Site, params: Params | None, observer: Observer, state: StateDir
    ) -> Outcome:
        task = self._bind(order.config)
        told = _ToldInLoop(observer, asyncio.get_running_loop())
        return await in_thread(lambda: _run(task, site, order, params, told, state))

    async def close(self) -> None:
        self._bound.clear()

    def _bind(self, config: JsonObject) -> Task:
        key = canonical_json(config)
        if key not in self._bound:
            self._bound[key] = self._task.bind(config)
        return self._bound[key]


def _run(
    task: Task, site: Site, order: Order, params: Params | None, observer: Observer, state: StateDir
) -> Outcome:
    try:
        return run_visit(task, placed(site), order, params, observer, state)
    except BaseException as error:      # SystemExit and its kin would end a child; here they cost a visit too
        reason = f"the task raised {type(error).__name__}: {error}"
        failure = Failure(client=order.client, code=FailureCode.TASK_ERROR, reason=reason)
        return Outcome(client=order.client, failure=failure)


class _ToldInLoop:
    """An observer for another thread: what it is told is passed on in the event loop."""

    def __init__(self, observer: Observer, loop: asyncio.AbstractEventLoop) -> None:
        self._observer = observer
        self._loop = loop

    def evaluated(self, metrics: Metrics) -> None:
        self._loop.call_soon_threadsafe(self._observer.evaluated, metrics)

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._loop.call_soon_threadsafe(self._observer.progressed, epoch, dict(metrics))

    def is_cancelled(self) -> bool:
        return self._loop.is_closed() or self._observer.is_cancelled()


async def in_thread(function: Callable[[], T]) -> T:
    """The result of `function`, from a thread that no exit waits for: Ctrl-C must not hang on a deaf task."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            settle = partial(_settle, done, result=function())
        except BaseException as error:
            settle = partial(_settle, done, error=error)
        with suppress(RuntimeError):    # the loop has ended without us
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=work, name="fednode-visit", daemon=True).start()
    return await done


def _settle(done: asyncio.Future[T], *, result: T | None = None, error: BaseException | None = None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(cast(T, result))


class Children:
    """As many visits at a time as there are child processes. Params are handed over in a temporary folder."""

    def __init__(self, spec: str, site: Site, size: int, clock: Clock) -> None:
        """`site` is any of the sites: it says how many threads a child may use."""
        self.size = size
        self._spec = spec
        self._all = [Child(site, clock) for _ in range(size)]
        self._idle = list(self._all)
        self._spool = _Spool()
        self._num_visits = 0

    async def offer(self, site: Site) -> Offer:
        """Asked of every child at once: each has then imported its frameworks and looked at the data."""
        offers = await asyncio.gather(*(child.offer(self._spec, site=site) for child in self._all))
        return offers[0]

    async def visit(
        self, order: Order, site: Site, params: Params | None, observer: Observer, state: StateDir
    ) -> Outcome:
        self._num_visits += 1
        update_file = self._spool.folder(params) / f"update-{self._num_visits}.safetensors"
        child = self._idle.pop()
        try:
            params_file = self._spool.file(order.base_model, params)
            outcome = await child.visit(self._spec, order, params_file, update_file, observer, site=site, state=state)
            return _in_memory(outcome)
        finally:
            self._idle.append(child)
            update_file.unlink(missing_ok=True)

    async def close(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._all))
        self._spool.remove()


def _in_memory(outcome: Outcome) -> Outcome:
    """A mapped file would hold a file descriptor for each client of the cohort."""
    if outcome.update is None:
        return outcome
    return replace(outcome, update=replace(outcome.update, params=outcome.update.params.copied()))


class _Spool:
    """Temporary folders for params on their way to a child and back; in shared memory where they fit."""

    def __init__(self) -> None:
        self._folders: dict[Path | None, Path] = {}
        self._model = ""            # sha256 of the params in `_file`
        self._file: Path | None = None

    def folder(self, params: Params | None) -> Path:
        """Where an update of the size of `params` can be left (None: of unknown size)."""
        parent = _roomy(0 if params is None else params.manifest.num_bytes)
        if parent not in self._folders:
            self._folders[parent] = Path(tempfile.mkdtemp(prefix=f"fednode-{os.getpid()}-", dir=parent))
        return self._folders[parent]

    def file(self, model: str, params: Params | None) -> Path | None:
        """The file of these params, written once; that of the model before is no longer needed by anybody."""
        if params is None or model == self._model:
            return self._file
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        self._file = self.folder(params) / f"{model}.safetensors"
        write_params(params, self._file, is_durable=False)
        self._model = model
        return self._file

    def remove(self) -> None:
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _roomy(num_bytes: int) -> Path | None:
    """Shared memory where many files of that size fit; None: the system's folder for temporary files."""
    if num_bytes == 0 or not os.access(SHARED_MEMORY, os.W_OK):
        return None
    return SHARED_MEMORY if shutil.disk_usage(SHARED_MEMORY).free > MANY * num_bytes else None
