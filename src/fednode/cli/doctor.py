"""`fednode doctor`: what may be wrong with this machine, and what to do about each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice

if TYPE_CHECKING:
    from fednode.doctor.findings import Finding

STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
BIG_BYTES = 1_000_000_000        # to read this takes seconds: tell how far we are
DoctorCentral = Annotated[str | None, typer.Option("--central", metavar="URL", help="Check this machine as a client node of that central node. [default: check it as a central node]")]


def doctor(
    central: DoctorCentral = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The client's name. [FEDNODE_NAME; default: this machine's name]")] = None,
    data: o.Data = None,
    tasks: o.Tasks = None,
    offline_sample: o.OfflineSample = False,
    threads: o.Threads = None,
    device: o.Device = None,
    state_dir: o.StateDir = None,
    token: o.Token = None,
    ca: o.Ca = None,
    whole_store: Annotated[bool, typer.Option("--store", help="Read all that a central node keeps in its state dir, and nothing else: every row, every file's hash.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Check this machine: each finding with its fix. Registers nothing, changes nothing."""
    from fednode.doctor.findings import exit_code_of
    from fednode.settings import load_settings

    settings = load_settings(central=central, name=name, data=data, threads=threads, device=device, token=token, ca=ca)
    of_site = (tasks, offline_sample, state_dir)
    if whole_store:
        found = _of_store(settings, state_dir, Voice(as_json))
    elif central is not None:
        found = _as_client(settings, of_site)
    elif data is not None or tasks or offline_sample:
        found = _as_site(settings, of_site)
    else:
        found = _as_central(settings, state_dir)
    _tell(Voice(as_json), found)
    raise typer.Exit(exit_code_of(found))


def _as_central(settings: Any, state_dir: Path | None) -> list[Finding]:
    from fednode.clock import SystemClock
    from fednode.doctor.examine import examine_central

    return asyncio.run(examine_central(settings, state_dir or settings.state_dir / "central", SystemClock()))


def _of_store(settings: Any, state_dir: Path | None, voice: Voice) -> list[Finding]:
    from fednode.core.units import size_text
    from fednode.doctor.whole_store import whole_store

    said = 0

    def told(num_read: int, num_all: int) -> None:
        nonlocal said
        tenths = num_read * 10 // max(1, num_all)
        if num_all > BIG_BYTES and tenths > said:
            said = tenths
            voice.note(f"{tenths * 10} % of {size_text(num_all)} are read")

    return whole_store(state_dir or settings.state_dir / "central", told, settings.database)


def _as_client(settings: Any, of_site: tuple[list[str] | None, bool, Path | None]) -> list[Finding]:
    from fednode.cli.site import client_settings
    from fednode.clock import SystemClock
    from fednode.doctor.examine import examine_client
    from fednode.doctor.findings import of_error
    from fednode.errors import BadConfig
    from fednode.settings import read_note

    tasks, offline_sample, state_dir = of_site
    try:
        chosen = client_settings(settings, tasks, None, offline_sample, state_dir)
    except BadConfig as error:
        return [of_error("settings", error)]
    token = chosen.token or str(read_note(settings.state_dir, chosen.central).get("join_token", ""))
    return asyncio.run(examine_client(replace(chosen, token=token), SystemClock()))


def _as_site(settings: Any, of_site: tuple[list[str] | None, bool, Path | None]) -> list[Finding]:
    from fednode.cli.site import client_settings
    from fednode.clock import SystemClock
    from fednode.doctor.examine import examine_site

    tasks, offline_sample, state_dir = of_site
    chosen = client_settings(settings, tasks, None, offline_sample, state_dir)
    return asyncio.run(examine_site(chosen, SystemClock()))


def _tell(voice: Voice, found: list[Finding]) -> None:
    from fednode.cli.data_report import report_json, tell_report
    from fednode.doctor.findings import Level

    reports = [finding.report for finding in found if finding.report is not None]
    if voice.is_json:
        voice.result({
            "ok": all(finding.level is not Level.FAIL for finding in found),
            **(report_json(reports[0]) if len(reports) == 1 else {}),
            "checks": [{"check": f.check, "level": f.level, "message": f.told, "fix": f.fix} for f in found],
        })
        return
    width = max(len(finding.check) for finding in found)
    for finding in found:
        voice.say(f"{finding.level:<5} {finding.check:<{width}}  {finding.told}", STYLES[finding.level])
        if finding.fix:
            voice.say(f"{'':5} {'':{width}}  Fix: {finding.fix}")
    for report in reports:
        voice.say("")
        tell_report(voice, report)
