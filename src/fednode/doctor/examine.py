"""All checks of one side, in the order in which a person would ask. Start reading here."""

from __future__ import annotations

from pathlib import Path

from fednode.client.talk import ClientSettings
from fednode.doctor.central import central
from fednode.doctor.disk import disk
from fednode.doctor.findings import Finding
from fednode.doctor.machine import (
    clock_is_set,
    environment,
    memory,
    open_files,
    packages,
    python,
    threads,
    torch_imports,
    torch_is_there,
)
from fednode.doctor.membership import key, membership
from fednode.doctor.network import network
from fednode.doctor.store import store
from fednode.doctor.tasks import tasks
from fednode.ports import Clock
from fednode.settings import Settings


async def examine_central(settings: Settings, state_dir: Path, clock: Clock) -> list[Finding]:
    """This machine, and the central node of this user: the one that runs, and what lies in `state_dir`."""
    return [
        python(), packages(), torch_is_there(), environment(), clock_is_set(clock), memory(), open_files(),
        *disk(state_dir, clock), *store(state_dir, clock, settings.database), *await central(settings, clock),
    ]


async def examine_client(settings: ClientSettings, clock: Clock) -> list[Finding]:
    """This machine as a client node, and its way to the central node. `settings.token`: also one from a note."""
    way, is_there = await network(settings, clock)
    return [
        python(), packages(), await torch_imports(), environment(), clock_is_set(clock), memory(),
        threads(settings.threads), *disk(settings.state_dir, clock), *way, key(settings),
        *(await membership(settings) if is_there else []), *await tasks(settings, clock),
    ]


async def examine_site(settings: ClientSettings, clock: Clock) -> list[Finding]:
    """The site's data alone, without a central node."""
    return [python(), packages(), await torch_imports(), memory(), *await tasks(settings, clock)]
