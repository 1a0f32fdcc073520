"""Power may go at any instant: whatever of the unsynced is then on the disk, what was acknowledged is there.

A short run (`store_driver`) is recorded, system call by system call; `disk_model` makes of any place in the recording
the states that a loss of power could leave there. Each must open, hold every update, decision and model that was
acknowledged by then, and play on to the end of a calm run. The recordings: a calm run; runs that were killed and
started again, for what the first process did not sync the second must not build on; runs in which an fsync failed,
after which the page cache shows what the disk will never have.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disk_model import CALLS, Call, Disk, calls_in, require_strace, traced
from store_driver import End, play, require_kept

from torture_scale import pick

DRIVER = Path(__file__).with_name("store_driver.py")
SEED = 20_261_124

# What happens to the processes of a recording, one after the other: (failpoint, injected fault).
FSYNCS, FDATASYNCS = range(1, 27), range(3, 23)         # of a run; the first are counted from its open store on
RECORDINGS: dict[str, list[tuple[str, str]]] = {
    "calm": [("", "")],
    "killed with an open round": [("round.opened@1", ""), ("", "")],
    "killed with an update in its place": [("update.renamed@1", ""), ("", "")],
    "killed before its cohort is committed": [("cohort.written@2", ""), ("", "")],
    **{f"fsync {number} fails": [("", f"fsync:error=EIO:when=opened+{number}")] for number in pick((8,), FSYNCS)},
    **{f"fdatasync {number} fails": [("", f"fdatasync:error=EIO:when={number}")] for number in pick((9,), FDATASYNCS)},
    **{
        f"fdatasync {number} fails, and the process is killed":
            [("", f"fdatasync:error=EIO:signal=KILL:when={number}"), ("", "")] for number in pick((7,), FDATASYNCS)
    },
}
ONLY_IN_FULL = ("killed with an update in its place", "killed before its cohort is committed")
NUM_FSYNCS_OF_OPENING = 2 + 7           # two folders are made, then those above them are fsynced, then its own
NUM_STATES = pick(4, 40)                # of each recording


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> End:
    return asyncio.run(play(tmp_path_factory.mktemp("calm") / "state"))


def record(folder: Path, faults: list[tuple[str, str]]) -> list[list[Call]]:
    """The calls of one driver process after the other, on the same state dir."""
    root = folder / "disk"
    root.mkdir()
    found = []
    num_before = NUM_FSYNCS_OF_OPENING + len((root / "some" / "state").parents)
    for number, (failpoint, fault) in enumerate(faults):
        inject = re.sub(r"opened\+(\d+)", lambda found: str(num_before + int(found[1])), fault)
        trace = folder / f"{number}.strace"
        program = [sys.executable, str(DRIVER), str(root / "some" / "state"), str(folder / "acks")]
        done = subprocess.run(
            traced(program, inject=inject, out=trace, calls=CALLS), capture_output=True, text=True, timeout=120,
            env=os.environ | {"FEDNODE_FAILPOINT": failpoint, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        is_killed = bool(failpoint or "KILL" in inject)
        assert (done.returncode == -signal.SIGKILL) is is_killed, done.stderr
        found.append(calls_in(trace))
    return found


@pytest.mark.parametrize("name", pick([name for name in RECORDINGS if name not in ONLY_IN_FULL], list(RECORDINGS)))
def test_a_loss_of_power_at_any_instant_loses_nothing_that_was_acknowledged(
    tmp_path: Path, calm: End, figures, name: str
) -> None:
    require_strace()
    recorded = record(tmp_path, RECORDINGS[name])
    whole = Disk(tmp_path / "disk", tmp_path / "acks")
    acked = [[call.name == "writev" for call in whole.play(calls)] for calls in recorded][-1]
    if "fails" in name:
        assert whole.num_failed_syncs >= 1, "the fault did not strike"

    disk, state = Disk(tmp_path / "disk", tmp_path / "acks"), tmp_path / "after"
    chance = random.Random(f"{SEED} {name}")
    for _ in disk_at_some_steps(disk, recorded, acked, chance):
        shutil.rmtree(state, ignore_errors=True)
        disk.lay_down(state, chance)
        asyncio.run(require_kept_and_plays_on(state / "some" / "state", disk, calm))
    figures.note(states=NUM_STATES, steps=len(acked), seed=SEED)


def disk_at_some_steps(disk: Disk, recorded: list[list[Call]], acked: list[bool], chance: random.Random):
    """The disk, at so many steps of the last process: half of them anywhere, half just after an acknowledgement."""
    for calls in recorded[:-1]:
        for _ in disk.play(calls):
            pass
    anywhere = range(len(acked))
    telling = [step for step in anywhere if acked[step]] or anywhere        # where it did not open, it told nothing
    stops = chance.choices(anywhere, k=NUM_STATES // 2) + chance.choices(telling, k=-(-NUM_STATES // 2))
    for step, _ in enumerate(disk.play(recorded[-1])):
        for _ in range(stops.count(step)):
            yield step


async def require_kept_and_plays_on(state_dir: Path, disk: Disk, calm: End) -> None:
    await require_kept(state_dir, disk.acks)
    assert await play(state_dir) == calm
