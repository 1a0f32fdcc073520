"""What this site can train: every task's own check of the data, in a child process as a client node has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fednode.child.child import Child
from fednode.client.talk import ClientSettings
from fednode.core.data_report import DataReport
from fednode.core.records import Offer
from fednode.core.units import count_text
from fednode.doctor.findings import Finding, Level, bad, doubtful, good, of_error
from fednode.errors import DataError, FednodeError
from fednode.ports import Clock
from fednode.tasks.registry import installed_tasks

NAME_THE_FOLDER = "name the folder by --data"


async def tasks(settings: ClientSettings, clock: Clock) -> list[Finding]:
    """Of the tasks that were named, else of all that are installed: there one that runs is enough."""
    gone = _gone(settings.data)
    if gone and not settings.tasks:
        return gone
    child = Child(settings.site, clock)
    try:
        where = await _device(settings.device, child)
        if where.level is Level.FAIL:
            return [where]
        if settings.tasks:
            return [where, *gone, *[await _asked_task(spec, child) for spec in settings.tasks]]
        found = [where, *[await _task(spec, child, is_asked=False) for spec in installed_tasks()]]
    finally:
        await child.stop()
    if any(not finding.fix for finding in found[1:]):
        return found
    return [*found, bad("data", "no installed task can run on this site's data", NAME_THE_FOLDER, DataError.exit_code)]


def _gone(data: Path | None) -> list[Finding]:
    if data is None or data.is_dir():
        return []
    return [bad("data", f"the folder {data} is not there", NAME_THE_FOLDER, DataError.exit_code)]


async def _device(asked: str, child: Child) -> Finding:
    """Where tasks would compute, as `--device` says."""
    try:
        return good("device", f"--device {asked}: {await child.device()}")
    except FednodeError as error:
        return of_error("device", error)


async def _asked_task(spec: str, child: Child) -> Finding:
    """With its report, where the task has one: that is the same look at the data, told file by file."""
    try:
        report = await child.report(spec)
    except FednodeError as error:
        return of_error(_check(spec), error)
    if report is None:
        return await _task(spec, child, is_asked=True)
    return replace(_reported(_check(spec), report), report=report)


def _reported(check: str, report: DataReport) -> Finding:
    if (fatal := report.fatal) is not None:
        return bad(check, fatal.message, fatal.fix, DataError.exit_code)
    told = "; ".join(f"{split} {sum(counts.values()):,}" for split, counts in report.splits.items())
    if not (report.skipped or report.problems):
        return good(check, told)
    odd = f"{count_text(len(report.skipped), 'file')} skipped, {count_text(len(report.problems), 'problem')}"
    return doubtful(check, f"{told}; {odd}", "see its report below")


async def _task(spec: str, child: Child, *, is_asked: bool) -> Finding:
    try:
        offer = await child.offer(spec)
    except FednodeError as error:
        return of_error(_check(spec), error) if is_asked else doubtful(_check(spec), error.message, error.fix)
    return good(_check(spec), f"{offer.fingerprint}: {counts(offer) or 'its data is fine'}")


def _check(spec: str) -> str:
    return f"task {Path(spec).name}"


def counts(offer: Offer) -> str:
    """The numbers of the task's own summary of the data."""
    return ", ".join(f"{name} {value}" for name, value in offer.summary.items() if isinstance(value, int | float | str))
