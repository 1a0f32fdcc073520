"""A real federation for a measurement: a central node, and client nodes with the task `echo`, each its own process.

What is started is what a person would start. Here they come and go, and play a run; what is timed of it, and how the
figures are made, is in the file of each measurement.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fednode.bench import echo
from fednode.bench.central import LOOK_S, MeasuredCentral, environment, measured_central
from fednode.bench.processes import MEGABYTE
from fednode.core.params import require_match
from fednode.demo.process import Member
from fednode.errors import BadParamsFile, ParamsMismatch, RunEnded, TimedOut
from fednode.ports import Clock
from fednode.wire.codec import read_params, sha256_of_file
from fednode.wire.http import Http
from fednode.wire.messages import RunRequest

TASK_FILE = Path(echo.__file__)
START_S, START_A_CLIENT_S = 60.0, 5.0
LOOK_AT_RUN_S = 0.5             # while it plays: a look costs the central node some time
MOST_ROUNDS = 900               # that are read in one answer

Row: TypeAlias = dict[str, Any]
Tell: TypeAlias = Callable[[str], None]


def say_nothing(text: str) -> None: ...


@dataclass(kw_only=True)
class Federation:
    """Everybody who takes part."""

    central: MeasuredCentral
    http: Http
    clock: Clock

    @property
    def clients(self) -> list[Member]:
        return self.central.members[1:]

    async def until_all_are_there(self) -> None:
        """Raises TaskFailed, TimedOut."""
        wait_s, began_s = START_S + START_A_CLIENT_S * len(self.clients), self.clock.now_s()
        while self.clock.now_s() - began_s < wait_s:
            self.require_running()
            clients = await self.http.request("GET", "/api/v1/clients", params={"task": echo.Echo.name})
            if sum(client["status"] in ("online", "busy") for client in clients) == len(self.clients):
                return
            await self.clock.sleep(LOOK_S)
        raise TimedOut(f"not all {len(self.clients)} clients came within {wait_s:.0f} s", fix="try fewer --clients")

    async def begin(self, *, rounds: int, num_params: int) -> str:
        """Ask for a run with all clients in every round; its id."""
        request = RunRequest(
            task=echo.Echo.name, rounds=rounds, task_config={"params": num_params}, min_updates=len(self.clients),
            deadline_s=3_600.0, keep_every=0,
        )
        return str((await self.http.request("POST", "/api/v1/runs", body=request))["run_id"])

    async def run(self) -> Row:
        """The summary of the one run that there is. Raises TaskFailed, RunEnded where it has ended by itself."""
        self.require_running()
        [run] = await self.http.request("GET", "/api/v1/runs")
        if run["status"] in ("failed", "paused"):
            raise RunEnded(f"the run {run['status']}: {run['reason']}", fix="try fewer --clients, or less --mb")
        return dict(run)

    async def end_of_run(self, tell: Tell = say_nothing) -> Row:
        """Its summary as soon as it has completed; `tell` hears how far it is. Raises as `run` does."""
        seen = 0
        while (run := await self.run())["status"] != "completed":
            if run["rounds"] > seen:
                seen = run["rounds"]
                tell(f"round {seen} of {run['rounds_planned']}")
            await self.clock.sleep(LOOK_AT_RUN_S)
        return run

    async def rounds(self, run_id: str, newest: int = MOST_ROUNDS) -> list[Row]:
        """Every attempt of every round, or of the newest, the first one first."""
        shown = await self.http.request("GET", f"/api/v1/runs/{run_id}", params={"limit": str(newest)})
        return list(reversed(shown["history"]))

    def is_right(self, run: Row, num_params: int) -> bool:
        """Whether a run's last model, as it lies on the disk, is what its rounds make of the first one, to the bit."""
        path = self.central.folder / "central" / "params" / "models" / f"{run['model_sha256']}.safetensors"
        if sha256_of_file(path) != run["model_sha256"]:
            return False
        found, wanted = read_params(path), echo.params_after(run["rounds"], num_params)
        try:
            require_match(found, wanted.manifest)
        except (BadParamsFile, ParamsMismatch):
            return False
        return all(bool((found[name] == wanted[name]).all()) for name in wanted)

    def require_running(self) -> None:
        """Raise TaskFailed where somebody has ended."""
        for member in self.central.members:
            member.require_running()


@asynccontextmanager
async def measured_federation(num_clients: int, clock: Clock) -> AsyncIterator[Federation]:
    """Start everybody, clients as soon as somebody answers; stop everybody at the end, and leave nothing behind."""
    async with measured_central(clock) as central, Http(central.url, token=central.operator_token) as http:
        await start_clients(num_clients, central.url, central.folder, central.members)
        federation = Federation(central=central, http=http, clock=clock)
        await federation.until_all_are_there()
        yield federation


async def start_clients(num_clients: int, url: str, folder: Path, members: list[Member]) -> None:
    """So many more members."""
    for number in range(1, num_clients + 1):
        name = client_name(number)
        args = [
            "client", "--central", url, "--name", name, "--task", f"{TASK_FILE}:{echo.Echo.__name__}",
            "--state-dir", str(folder / "clients" / name),
        ]
        members.append(await Member.start(f"client {name}", args, folder / f"{name}.log", environment(folder)))


def client_name(number: int) -> str:
    """So that name order is the order of numbers."""
    return f"{echo.Echo.name}-{number:04}"


def num_params_of(mb: float) -> int:
    """How many float32 numbers take so many megabytes, of a million bytes each."""
    return max(echo.NUM_TENSORS, round(mb * MEGABYTE / 4))


def commits(rounds: Sequence[Row]) -> list[float]:
    """When the model of each round of training was committed, and before them the initial one: wall seconds."""
    return [row["ended_s"] for row in rounds if row["status"] == "committed" and row["kind"] != "evaluate"]


def num_errors_in(rounds: list[Row]) -> int:
    """What went wrong in a run, though it went on: clients that failed, and rounds that were tried again."""
    failures = sum(client["failure"] is not None for row in rounds for client in row["clients"])
    return failures + len([row for row in rounds if row["attempt"] > 1])


def spread(seconds: Sequence[float], name: str = "seconds") -> dict[str, float]:
    """The median by its name, and the extremes."""
    found = {name: statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {key: round(value, 4) for key, value in found.items()}
