"""What a central node keeps in its state dir: does it open, is it sound, is all there. Read-only."""

from __future__ import annotations

from pathlib import Path

from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import FednodeError, NotFound
from fednode.ports import Clock
from fednode.store.examination import Examined, examine_store

AHEAD_S = 60.0


def store(state_dir: Path, clock: Clock, database: str = "") -> list[Finding]:
    """`database`: the URL of rows that are elsewhere."""
    try:
        found = examine_store(state_dir, database)
    except NotFound:
        return [good("store", f"none yet in {state_dir}")]
    except FednodeError as error:
        return [of_error("store", error)]
    return [_files(found), _version(found), *_clock_of(found, clock)]


def _files(found: Examined) -> Finding:
    told = f"sound: {found.num_runs} runs, {found.num_models} models, {found.num_clients} clients"
    if found.missing:
        num, first = len(found.missing), found.missing[0]
        return bad("store", f"{num} params files are gone, the first is {first}", "restore the state dir from a backup")
    return good("store", told)


def _version(found: Examined) -> Finding:
    if found.is_newest:
        return good("tables", f"revision {found.revision}, the newest")
    told = f"revision {found.revision} is an older fednode's"
    return doubtful("tables", told, "take a backup; the next start brings them up to date")


def _clock_of(found: Examined, clock: Clock) -> list[Finding]:
    """The store's times should not be ahead of the clock."""
    ahead_s = found.newest_event_s - clock.wall_s()
    if ahead_s < AHEAD_S:
        return []
    told = f"the newest event was {ahead_s:.0f} s later than now"
    return [doubtful("clock went back", told, "set the clock by NTP: timedatectl set-ntp true")]
