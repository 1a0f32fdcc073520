"""Each system call by which something becomes durable, hit: the process is killed at it, or the disk refuses it.

strace kills the process (or returns EIO, ENOSPC) at the Nth call of a kind, N = 1, 2, ... until a run is over before
it comes so far. What was acknowledged before is there after a restart, and the run ends as a calm one: the same model,
metrics and journal. strace counts by thread; `store_driver` therefore has two only, and `test_power_loss` looks at the
instants between. The same of real processes, for some calls: a central node and a client node under strace.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk_model import require_strace, traced
from store_driver import End, acks_in, play, require_kept

import fednode
from federation_scene import FEDNODE, Federation, wait_until
from torture_scale import pick

DRIVER = Path(__file__).with_name("store_driver.py")
CLIENT = "a-clinic"
ROUNDS = 12


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> End:
    require_strace()
    return asyncio.run(play(tmp_path_factory.mktemp("calm") / "state"))


@dataclass
class Struck:
    """A driver that met one fault."""

    folder: Path
    returncode: int
    has_struck: bool
    said: str

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    async def require_kept_and_plays_on(self, calm: End) -> None:
        await require_kept(self.state_dir, acks_in(self.folder / "acks"))
        assert await play(self.state_dir) == calm


def strike(folder: Path, inject: str) -> Struck:
    """The whole run, with a fault."""
    folder.mkdir()
    program = [sys.executable, str(DRIVER), str(folder / "state"), str(folder / "acks")]
    done = subprocess.run(
        traced(program, inject=inject, out=folder / "trace"), capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    has_struck = done.returncode == -signal.SIGKILL or "INJECTED" in (folder / "trace").read_text()
    return Struck(folder, done.returncode, has_struck, done.stderr)


# Where to hit in the short form; in the full one every N, until a run is not hit any more.
KILLS = {"fdatasync": (17,), "pwrite64": (120,), "rename": (7,)}
MORE_KILLS = ("fsync", "write", "unlink", "mkdir", "openat", "ftruncate", "rmdir")
STEP = {"pwrite64": 5, "openat": 97}      # every 5th of some 400; those of 1,300 that open are mostly Python's modules


@pytest.mark.parametrize("call", pick(tuple(KILLS), (*KILLS, *MORE_KILLS)))
def test_a_process_killed_at_its_nth_call_has_lost_nothing_and_goes_on(
    tmp_path: Path, calm: End, figures, call: str
) -> None:
    num_hit = 0
    for n in pick(KILLS.get(call, ()), range(1, 10_000, STEP.get(call, 1))):
        struck = strike(tmp_path / f"{call}-{n}", f"{call}:signal=KILL:when={n}")
        assert (struck.returncode == 0) is not struck.has_struck, struck.said
        if not struck.has_struck:
            break
        num_hit += 1
        asyncio.run(struck.require_kept_and_plays_on(calm))
    assert num_hit >= pick(len(KILLS.get(call, ())), 1), "nothing was hit"
    figures.note(call=call, kills=num_hit)


REFUSALS = {
    ("fdatasync", "EIO"): (11,), ("write", "ENOSPC"): (9,),
}
MORE_REFUSALS = [
    ("fsync", "EIO"), ("pwrite64", "EIO"),
    ("fdatasync", "ENOSPC"), ("fsync", "ENOSPC"), ("pwrite64", "ENOSPC"), ("write", "EIO"), ("rename", "EIO"),
    ("rename", "ENOSPC"), ("unlink", "EIO"), ("mkdir", "ENOSPC"), ("ftruncate", "EIO"),
]


@pytest.mark.parametrize("fault", pick(tuple(REFUSALS), (*REFUSALS, *MORE_REFUSALS)), ids=" ".join)
def test_what_the_disk_refuses_is_never_acknowledged_and_the_run_goes_on(
    tmp_path: Path, calm: End, figures, fault: tuple[str, str]
) -> None:
    """The driver either goes on by itself, or ends with an error before its run began: then the next start goes on."""
    call, said = fault
    num_hit = num_ended = 0
    for n in pick(REFUSALS.get(fault, ()), range(1, 10_000, STEP.get(call, 1))):
        struck = strike(tmp_path / f"{call}-{n}", f"{call}:error={said}:when={n}")
        if not struck.has_struck:
            break
        num_hit += 1
        has_begun = any(ack["what"] == "running" for ack in acks_in(struck.folder / "acks"))
        if struck.returncode:
            num_ended += 1
            assert "Error" in struck.said
            assert not has_begun or any(ack["what"] == "ended" for ack in acks_in(struck.folder / "acks")), struck.said
        asyncio.run(struck.require_kept_and_plays_on(calm))
    assert num_hit >= pick(len(REFUSALS.get(fault, ())), 1), "nothing was hit"
    figures.note(call=call, error=said, refusals=num_hit, ended_at_their_start=num_ended)


# --- real processes ------------------------------------------------------------------------------------------


class Traced(Federation):
    """A federation whose members may be under strace."""

    def start_struck(self, name: str, inject: str, *args: str) -> None:
        self.args[name] = list(args) or self.args[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.members[name] = subprocess.Popen(
                traced([*FEDNODE, *self.args[name]], inject=inject, out=self.folder / f"{name}.trace"),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env, cwd=self.folder,
            )

    def stop_all(self) -> None:
        """What strace traces would outlive a strace that is killed: it is ended first."""
        for member in self.members.values():
            if member.poll() is None:
                for below in Path(f"/proc/{member.pid}/task/{member.pid}/children").read_text().split():
                    os.kill(int(below), signal.SIGKILL)
        super().stop_all()

    def is_killed(self, name: str) -> bool:
        return self.members[name].poll() == -signal.SIGKILL

    def is_there(self, name: str) -> bool:
        return any(c["name"] == name and c["status"] != "gone" for c in self.get("clients"))

    def run_it(self) -> str:
        sets = ("--set=task.epochs=1", "--set=task.images_per_client=0")
        return self.run_in_background("mnist_3v7", "--rounds", str(ROUNDS), "--seed", "11", *sets)

    def has_ended(self, run_id: str) -> bool:
        return bool(self.get(f"runs/{run_id}")["status"] == "completed")


@pytest.fixture
def traced_federation(tmp_path: Path):
    require_strace()
    fed = Traced(tmp_path)
    yield fed
    fed.stop_all()


@pytest.fixture(scope="module")
def calm_run() -> fednode.Simulation:
    return fednode.simulate(
        "mnist_3v7", clients=(CLIENT,), rounds=ROUNDS, task_config={"epochs": 1, "images_per_client": 0},
        offline_sample=True, split="iid", seed=11,
    )


def assert_ends_as(federation: Traced, run_id: str, calm_run: fednode.Simulation) -> None:
    summary = federation.end_of(run_id)
    assert summary["status"] == "completed", summary
    assert summary["model_sha256"] == calm_run.model_sha256
    assert summary["metrics"] == calm_run.metrics
    assert federation.get(f"runs/{run_id}/journal")[-1]["hash"] == calm_run.journal[-1].hash


CENTRAL = ("central", "--port", "{port}", "--state-dir", "{folder}/central")
SITE = ("client", "--name", CLIENT, "--state-dir", "{folder}/clients", "--task", "mnist_3v7", "--offline-sample",
        "--partition", "1/1", "--split", "iid")


def args_of(federation: Traced, args: tuple[str, ...]) -> list[str]:
    return [arg.format(port=federation.port, folder=federation.folder) for arg in args]


KILLS_OF_CENTRAL = [
    *(f"fdatasync:signal=KILL:when={n}" for n in range(40, 24, -3)),
    *(f"pwrite64:signal=KILL:when={n}" for n in range(500, 800, 50)),
    *(f"fsync:signal=KILL:when={n}" for n in range(3, 6)), *(f"rename:signal=KILL:when={n}" for n in range(3, 6)),
]
REFUSALS_OF_CENTRAL = [
    *(f"fdatasync:error=EIO:when={n}" for n in range(15, 33, 2)),
    *(f"pwrite64:error=ENOSPC:when={n}" for n in range(100, 350, 50)),
    *(f"fsync:error=EIO:when={n}" for n in range(2, 6)),
]


@pytest.mark.parametrize(
    ("kill", "refusal"), list(zip(KILLS_OF_CENTRAL, REFUSALS_OF_CENTRAL, strict=True))[:pick(1, None)]
)
def test_a_central_node_killed_at_a_call_and_refused_another_goes_on_as_if_nothing_had_happened(
    traced_federation: Traced, calm_run: fednode.Simulation, figures, kill: str, refusal: str
) -> None:
    fed = traced_federation
    fed.start_struck("central", kill, *args_of(fed, CENTRAL))
    fed.wait_for_central()
    fed.start("site", *args_of(fed, SITE))
    fed.wait_for_clients(CLIENT)
    run_id = fed.run_it()
    wait_until(lambda: fed.is_killed("central"), f"the kill of the central node: {fed.log('central')}")
    fed.start_struck("central", refusal)
    fed.wait_for_central()
    assert_ends_as(fed, run_id, calm_run)
    assert "INJECTED" in (fed.folder / "central.trace").read_text(), "the fault did not strike"
    figures.note(kill=kill, refusal=refusal)


@pytest.mark.parametrize("when", pick((5,), range(1, 12)))
def test_a_client_node_killed_as_it_puts_a_file_in_its_place_goes_on_as_if_nothing_had_happened(
    traced_federation: Traced, calm_run: fednode.Simulation, figures, when: int
) -> None:
    """Its key, its secret, its ledger, the finished updates in its outbox."""
    fed, run_id = traced_federation, ""
    fed.start_central()
    fed.start_struck("site", f"rename:signal=KILL:when={when}", *args_of(fed, SITE))
    wait_until(lambda: fed.is_killed("site") or fed.is_there(CLIENT), f"the client or its kill: {fed.log('site')}")
    if not fed.is_killed("site"):
        run_id = fed.run_it()
        wait_until(lambda: fed.is_killed("site") or fed.has_ended(run_id), "the end of the client, or of its work")
    assert fed.is_killed("site"), "nothing was hit"
    fed.start("site")
    fed.wait_for_clients(CLIENT)
    assert_ends_as(fed, run_id or fed.run_it(), calm_run)
    figures.note(when=when, kills=1)
