"""The demo: a central node and its client nodes as real processes, HTTP on loopback, one run, and then each client
alone for comparison.

Nothing here is special to a demo except its choices, which are in `tasks`: it starts what a person would start, and
asks the central node for a run as the command line would. `process` holds one started process; `cli/demo.py` talks.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from fednode.child.child import Child
from fednode.clock import SystemClock
from fednode.core.data_report import DataReport
from fednode.demo.process import Member, stop_all
from fednode.demo.tasks import DemoTask
from fednode.errors import CannotConnect, DataError, NotFound, PortTaken, RunEnded, StoreLocked, TaskFailed, TimedOut
from fednode.ports import Clock
from fednode.settings import DEFAULT_PORT, read_note
from fednode.tasks.base import Site
from fednode.wire.http import Http, with_retries
from fednode.wire.messages import RunRequest

Event: TypeAlias = dict[str, Any]
PARTITION_SEED, SEED = 0, 1
START_S, POLL_S, POLL_EVENTS_S = 60.0, 0.05, 2.0
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a person may choose about the demo."""

    task: DemoTask
    rounds: int
    data: Path | None = None            # None: the sample that comes with fednode
    clients: int = 3
    port: int | None = None             # None: 5000, or a free one where that is taken
    state_dir: Path | None = None       # None: `demo/` below the user's state dir, `demo-2/` for a second one
    user_state_dir: Path

    @property
    def split(self) -> str:
        """How the data is cut among the clients."""
        return self.task.split if self.data else self.task.split_of_sample


@dataclass(frozen=True)
class Demo:
    """A demo that is up."""

    url: str
    state_dir: Path
    http: Http
    members: list[Member]
    is_same_data: bool                  # as when this folder was used last: what was begun then may go on

    @property
    def models_dir(self) -> Path:
        return self.state_dir / "central" / "params" / "models"

    async def train(self, settings: DemoSettings, on_event: Callable[[Event], None]) -> dict[str, Any]:
        """The demo's run, followed to its end: the one that an earlier demo did not bring to an end, or a new one."""
        run = await self._going_on(settings) or await self._new_run(settings, client_names(settings.clients))
        return await self._follow(run["run_id"], on_event)

    async def train_alone(self, settings: DemoSettings, federated: dict[str, Any]) -> dict[str, Any] | None:
        """Each client in a run of its own, side by side, with the same rounds and seed: the table of what they reached.

        None where there is one client only. Raises RunEnded where a run does not complete.
        """
        if settings.clients == 1:
            return None
        runs = [run for run in await self._as_asked(settings) if _is_alone_after(run, federated)]
        begun = {run["config"]["clients"][0]: run for run in runs}
        names = client_names(settings.clients)
        runs = [begun.get(name) or await self._new_run(settings, [name]) for name in names]
        for run in await asyncio.gather(*(self._follow(run["run_id"], _say_nothing) for run in runs)):
            self.require_completed(run)
        found = await self.http.request("GET", "/api/v1/compare", params={"run": federated["run_id"]})
        return dict(found["alone"])

    async def _going_on(self, settings: DemoSettings) -> dict[str, Any] | None:
        """What Ctrl-C interrupted goes on, if it is what was asked for; every other unfinished run is cancelled.

        A federated run that has ended goes on too, as long as not every client has trained alone after it.
        """
        runs = await self._as_asked(settings)
        federated = next((run for run in runs if len(run["config"]["clients"]) == settings.clients), None)
        kept = [run for run in runs if federated and (run is federated or _is_alone_after(run, federated))]
        for run in await self.http.request("GET", "/api/v1/runs"):
            if run["status"] not in FINAL and run["run_id"] not in [other["run_id"] for other in kept]:
                await self.http.request("POST", f"/api/v1/runs/{run['run_id']}/cancel")
        num_over = len({tuple(run["config"]["clients"]) for run in kept if run["status"] == "completed"})
        num_wanted = 1 if settings.clients == 1 else 1 + settings.clients
        return federated if num_over < num_wanted else None

    async def _as_asked(self, settings: DemoSettings) -> list[dict[str, Any]]:
        """The runs of a demo with these settings that go on, or have come to a good end; newest first."""
        if not self.is_same_data:
            return []
        return [run for run in await self.http.request("GET", "/api/v1/runs") if _is_as_asked(run, settings)]

    async def _new_run(self, settings: DemoSettings, clients: list[str]) -> dict[str, Any]:
        request = RunRequest(
            task=settings.task.name, rounds=settings.rounds, task_config=dict(settings.task.config), seed=SEED,
            clients=clients,
        )
        return dict(await self.http.request("POST", "/api/v1/runs", body=request))

    def require_completed(self, run: dict[str, Any]) -> None:
        """Raises RunEnded with the reason of a run that did not."""
        if run["status"] != "completed":
            raise RunEnded(
                f"run #{run['number']} {run['status']}: {run['reason'] or 'no reason was given'}",
                fix=f"see the logs in {self.state_dir / 'logs'}",
            )

    async def _follow(self, run_id: str, on_event: Callable[[Event], None]) -> dict[str, Any]:
        after, wait_s = 0, POLL_EVENTS_S
        while True:
            for member in self.members:
                member.require_running()
            path, params = f"/api/v1/runs/{run_id}/events", {"after": str(after), "wait": str(wait_s)}
            answer = await with_retries(self.http.request)("GET", path, params=params)
            for event in answer["events"]:
                on_event(event)
            after = answer["next"]
            if answer["run"]["status"] in FINAL:
                if not answer["events"]:
                    return dict(answer["run"])
                wait_s = 0.0            # it has ended: what is left to tell is there already


def _is_as_asked(run: dict[str, Any], settings: DemoSettings) -> bool:
    config, names = run["config"], client_names(settings.clients)
    is_same = (run["task"], config["rounds"], config["seed"]) == (settings.task.name, settings.rounds, SEED)
    is_same_task = is_same and settings.task.config.items() <= config["task_config"].items()
    is_of_ours = config["clients"] == names or config["clients"] in [[name] for name in names]
    return is_same_task and is_of_ours and run["status"] in ("queued", "running", "completed")


def _is_alone_after(run: dict[str, Any], federated: dict[str, Any]) -> bool:
    return run["number"] > federated["number"] and len(run["config"]["clients"]) == 1


def _say_nothing(event: Event) -> None:
    """Of runs beside which another one is told."""


def client_names(num_clients: int) -> list[str]:
    return [f"hospital-{number}" for number in range(1, num_clients + 1)]


@asynccontextmanager
async def demo_federation(settings: DemoSettings, clock: Clock | None = None) -> AsyncIterator[Demo]:
    """Start everything, wait until the clients are there, and stop everything at the end.

    Raises NotFound without torch, PortTaken, StoreLocked, DataError where the state dir cannot be written.
    """
    clock = clock or SystemClock()
    _require_torch()
    async with AsyncExitStack() as stack:
        state_dir = stack.enter_context(_own_folder(settings))
        is_same_data = _remember(settings.data, state_dir)
        members: list[Member] = []
        stack.push_async_callback(stop_all, members)
        url, http = await _answering(members, state_dir, settings, clock)
        await stack.enter_async_context(http)
        for number, name in enumerate(client_names(settings.clients), 1):
            members.append(await _start_client(number, name, url, state_dir, settings))
        await _wait_for_clients(http, members, settings, clock)
        yield Demo(url, state_dir, http, members, is_same_data)


async def look_at(settings: DemoSettings, clock: Clock) -> DataReport | None:
    """What the task says of the named folder, file by file: what is decoded for it is there when clients start.

    None without a folder, and of a task that has no reports. Raises DataError where nothing can be trained.
    """
    if settings.data is None:
        return None
    if not settings.data.is_dir():
        raise DataError(f"the data folder {settings.data} is not there", fix="name the folder by --data")
    child = Child(Site(client="demo", data=settings.data), clock)
    try:
        report = await child.report(settings.task.name)
    finally:
        await child.stop()
    if report is not None and (fatal := report.fatal) is not None:
        raise DataError(fatal.message, fix=fatal.fix)
    return report


def _remember(data: Path | None, state_dir: Path) -> bool:
    """Whether it is the folder of the last time; from now on it is the last one."""
    told, file = str(data.absolute() if data else ""), state_dir / "data"
    before = file.read_text(errors="surrogateescape") if file.exists() else None
    file.write_text(told, errors="surrogateescape")
    return before == told


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise NotFound(
            "the demo trains a small network with PyTorch, which is not installed",
            fix="pip install 'fednode[torch]'; without it: fednode simulate mnist_3v7 --offline-sample",
        )


def _choose_port(wanted: int | None) -> int:
    """The port asked for, or 5000, or (where nobody asked and 5000 is taken) a free one."""
    for port in (wanted,) if wanted is not None else (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise PortTaken(f"port {wanted} is in use", fix="choose another: fednode demo --port 5001, or leave --port out")


@contextmanager
def _own_folder(settings: DemoSettings) -> Iterator[Path]:
    """The demo's folder, held by a lock while the demo runs; a second demo beside it takes the next one."""
    base = settings.state_dir or settings.user_state_dir / "demo"
    more = [] if settings.state_dir else [base.with_name(f"demo-{number}") for number in range(2, 10)]
    for folder in (base, *more):
        lock = _open_lock(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        try:
            yield folder
        finally:
            os.close(lock)
        return
    raise StoreLocked(f"another demo is using {base}", fix="end it, or choose another --state-dir")


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / "demo.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataError(
            f"cannot write in {folder}: {error.strerror}", fix="choose another folder with --state-dir"
        ) from None


async def _answering(
    members: list[Member], state_dir: Path, settings: DemoSettings, clock: Clock, num_tries: int = 3
) -> tuple[str, Http]:
    """The central node, started as the first member: its URL and a door to it.

    Between the choice of a port and its use another demo may take it: then at another one.
    """
    port = _choose_port(settings.port)
    url = f"http://127.0.0.1:{port}"
    members[:] = [await _start_central(port, state_dir, settings)]
    try:
        return url, await _connect(url, members[0], settings, clock)
    except TaskFailed:
        is_taken = members[0].process.returncode == PortTaken.exit_code
        if num_tries == 1 or settings.port is not None or not is_taken:
            raise
    return await _answering(members, state_dir, settings, clock, num_tries - 1)


async def _start_central(port: int, state_dir: Path, settings: DemoSettings) -> Member:
    args = ["central", "--port", str(port), "--state-dir", str(state_dir / "central")]
    return await Member.start("the central node", args, state_dir / "logs" / "central.log", _env(settings))


async def _start_client(number: int, name: str, url: str, state_dir: Path, settings: DemoSettings) -> Member:
    args = [
        "client", "--central", url, "--name", name, "--task", settings.task.name,
        "--partition", f"{number}/{settings.clients}", "--split", settings.split,
        "--partition-seed", str(PARTITION_SEED), "--state-dir", str(state_dir / "clients" / name),
        *(["--data", str(settings.data)] if settings.data else ["--offline-sample"]),
    ]
    return await Member.start(f"client {name}", args, state_dir / "logs" / f"{name}.log", _env(settings))


def _env(settings: DemoSettings) -> dict[str, str]:
    return {"FEDNODE_STATE_DIR": str(settings.user_state_dir)}


async def _connect(url: str, central: Member, settings: DemoSettings, clock: Clock) -> Http:
    """An open door to the central node, as soon as it answers."""
    started_s = clock.now_s()
    while clock.now_s() - started_s < START_S:
        central.require_running()
        note = read_note(settings.user_state_dir, url)
        http = Http(url, token=str(note.get("operator_token", "")))
        try:
            await http.request("GET", "/healthz")
            if note.get("pid") == central.process.pid:      # and not another demo's, at the same port
                return http
        except CannotConnect:
            pass
        await http.aclose()
        await clock.sleep(POLL_S)
    raise TimedOut(f"the central node did not answer within {START_S:.0f} s", fix=f"its log is {central.log}")


async def _wait_for_clients(http: Http, members: list[Member], settings: DemoSettings, clock: Clock) -> None:
    started_s, wanted = clock.now_s(), settings.clients
    while clock.now_s() - started_s < START_S:
        for member in members:
            member.require_running()
        clients = await http.request("GET", "/api/v1/clients", params={"task": settings.task.name})
        if sum(client["status"] in ("online", "busy") for client in clients) >= wanted:
            return
        await clock.sleep(POLL_S)
    raise TimedOut(f"not all {wanted} clients came within {START_S:.0f} s", fix=f"their logs: {members[0].log.parent}")
