"""`fednode client approvals`, `approve` and `refuse`: which task code this site's operator lets run, without a page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice

if TYPE_CHECKING:
    from fednode.client.approvals import Approvals, Code

Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What the client is called. [FEDNODE_NAME; default: this machine's name]")]
Fingerprint = Annotated[str, typer.Argument(metavar="FINGERPRINT", help="As `fednode client approvals` shows it: digits#0123456789ab, or mnist@1.")]


def approvals(context: typer.Context, name: Name = None, state_dir: o.StateDir = None, as_json: o.AsJson = False) -> None:
    """What waits for an approval by hand, with the difference to what was approved before; and what was decided."""
    folder = _folder(context, name, state_dir)
    known, voice = _approvals(folder), Voice(as_json)
    codes = known.all()
    if as_json:
        voice.result([{**asdict(code), "difference": list(known.review(code).difference)} for code in codes])
    elif not codes:
        voice.say(f"No client node with its state in {folder} has asked for an approval.")
    for code in () if as_json else codes:
        _tell(voice, known, code)


def approve(context: typer.Context, fingerprint: Fingerprint, name: Name = None, state_dir: o.StateDir = None, as_json: o.AsJson = False) -> None:
    """Let this version of a task run here. A client node that runs offers it within seconds."""
    from fednode.client.approvals import Verdict

    decided = _approvals(_folder(context, name, state_dir)).decide(fingerprint, Verdict.APPROVED)
    _tell_decided(Voice(as_json), decided, f"Approved: {decided.fingerprint}. It takes part from the next round on.")


def refuse(context: typer.Context, fingerprint: Fingerprint, name: Name = None, state_dir: o.StateDir = None, as_json: o.AsJson = False) -> None:
    """Do not let this version of a task run here, or no longer. What is in work is finished."""
    from fednode.client.approvals import Verdict

    decided = _approvals(_folder(context, name, state_dir)).decide(fingerprint, Verdict.REFUSED)
    _tell_decided(Voice(as_json), decided, f"Refused: {decided.fingerprint}. It is not offered.")


def _tell_decided(voice: Voice, code: Code, told: str) -> None:
    voice.say(told)
    if voice.is_json:
        voice.result(asdict(code))


def _tell(voice: Voice, known: Approvals, code: Code) -> None:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(code.at_s, UTC).astimezone()
    since = "since" if code.verdict == "waiting" else "on"
    voice.say(f"{code.fingerprint}  {code.verdict} {since} {when:%Y-%m-%d %H:%M}  {code.spec}")
    if code.verdict != "waiting":
        return
    if not code.source:
        voice.say("  a task of an installed package: its version is approved, not its source")
    for line in known.review(code).difference:
        voice.say(f"  {line}", {"+": "green", "-": "red"}.get(line[:1], ""))


def _approvals(folder: Path) -> Approvals:
    from fednode.client.approvals import Approvals
    from fednode.clock import SystemClock

    return Approvals(folder, SystemClock())


def _folder(context: typer.Context, name: str | None, state_dir: Path | None) -> Path:
    """The state dir of the client: by this command's options, else by those of `fednode client` before it."""
    from fednode.cli.site import client_name
    from fednode.settings import load_settings

    before = context.parent.params if context.parent else {}
    settings = load_settings(name=name or before.get("name"))
    return state_dir or before.get("state_dir") or settings.state_dir / "clients" / client_name(settings)
