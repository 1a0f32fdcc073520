"""What this site can train: every task's own check of the data, in a child process as a client node has it."""

from __future__ import annotations

from pathlib import Path

from fednode.child.child import Child
from fednode.client.talk import ClientSettings
from fednode.core.records import Offer
from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import DataError, FednodeError
from fednode.ports import Clock
from fednode.tasks.registry import installed_tasks

NAME_THE_FOLDER = "name the folder by --data"


async def tasks(settings: ClientSettings, clock: Clock) -> list[Finding]:
    """Of the tasks that were named, else of all that are installed: there one that runs is enough."""
    if settings.data is not None and not settings.data.is_dir():
        return [bad("data", f"the folder {settings.data} is not there", NAME_THE_FOLDER, DataError.exit_code)]
    child = Child(settings.site, clock)
    try:
        specs = settings.tasks or tuple(installed_tasks())
        found = [await _task(spec, child, is_asked=bool(settings.tasks)) for spec in specs]
    finally:
        await child.stop()
    if settings.tasks or any(not finding.fix for finding in found):
        return found
    return [*found, bad("data", "no installed task can run on this site's data", NAME_THE_FOLDER, DataError.exit_code)]


async def _task(spec: str, child: Child, *, is_asked: bool) -> Finding:
    check = f"task {Path(spec).name}"
    try:
        offer = await child.offer(spec)
    except FednodeError as error:
        return of_error(check, error) if is_asked else doubtful(check, error.message, error.fix)
    return good(check, f"{offer.fingerprint}: {counts(offer) or 'its data is fine'}")


def counts(offer: Offer) -> str:
    """The numbers of the task's own summary of the data."""
    return ", ".join(f"{name} {value}" for name, value in offer.summary.items() if isinstance(value, int | float | str))
