"""`fednode client`: the node beside the data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fednode.cli import approvals
from fednode.cli import options as o
from fednode.cli.output import Voice, plain
from fednode.cli.rehearsal import tell_rehearsal
from fednode.cli.site import can_be_read, client_settings, partition_of

if TYPE_CHECKING:
    from fednode.cli.talk import TerminalTalk
    from fednode.client.approvals import Approvals
    from fednode.client.ledger import Ledger
    from fednode.client.sharing import Sharing
    from fednode.client.snapshot import Transcript
    from fednode.client.talk import ClientSettings
    from fednode.ports import Clock
    from fednode.settings import Settings


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("approvals")(plain(approvals.approvals))
app.command("approve")(plain(approvals.approve))
app.command("refuse")(plain(approvals.refuse))


@app.callback(invoke_without_command=True)
@plain
def client(
    context: typer.Context,
    central: o.CentralUrl = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What this client is called: unique in the federation. [FEDNODE_NAME; default: this machine's name]")] = None,
    data: o.Data = None,
    tasks: o.Tasks = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="K/N", help="Use part K (from 1) of N of a shared data folder.")] = None,
    split: o.Split = "iid",
    partition_seed: o.PartitionSeed = 0,
    offline_sample: o.OfflineSample = False,
    threads: o.Threads = None,
    device: o.Device = None,
    state_dir: o.StateDir = None,
    token: o.Token = None,
    ca: o.Ca = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Show this client's own page at http://localhost:PORT, to this machine only. [FEDNODE_PAGE_PORT; default: no page]")] = None,
    no_summary: Annotated[bool, typer.Option("--no-summary", help="Keep the counts of this site's data (examples by class) from the central node. [FEDNODE_SHARE_SUMMARY=false]")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be shared, and share nothing.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Join a federation: train on this machine's data, send back params only. Dials out, never lets anybody in."""
    if context.invoked_subcommand:
        return
    from fednode.settings import load_settings

    settings = load_settings(
        central=central, name=name, data=data, threads=threads, device=device, token=token, ca=ca, page_port=port,
        share_summary=False if no_summary else None,
    )
    chosen = client_settings(settings, tasks, partition_of(partition, split, partition_seed), offline_sample, state_dir)

    if dry_run:
        tell_rehearsal(Voice(as_json), chosen)
        return
    _join(chosen, settings, f"--state-dir {state_dir}" if state_dir else f"--name {chosen.name}")


def _join(chosen: ClientSettings, settings: Settings, where: str) -> None:
    """Be a client node until it is ended. `where`: the flag by which other commands find it."""
    from fednode.cli.talk import TerminalTalk
    from fednode.client.daemon import run_client
    from fednode.client.snapshot import Transcript
    from fednode.clock import SystemClock
    from fednode.settings import read_note

    def note(url: str) -> str:
        return str(read_note(settings.state_dir, url).get("join_token", ""))

    clock = SystemClock()
    transcript = Transcript(clock)
    with TerminalTalk(transcript.keep, where) as terminal:
        terminal.policy(chosen.policy)
        if can_be_read(chosen.central):
            terminal.warn(f"Anybody on the way to {chosen.central} can read params, scores and secrets: http is not encrypted.")
        if settings.page_port is None:
            life = run_client(chosen, terminal, clock, note)
        else:
            life = _run_with_page(chosen, settings.page_port, terminal, transcript, clock, note)
        asyncio.run(life)


def _run_with_page(
    chosen: ClientSettings, port: int, terminal: TerminalTalk, transcript: Transcript, clock: Clock,
    note: Callable[[str], str],
) -> Coroutine[Any, Any, None]:
    """The client node, with its own page beside it. Raises PortTaken, UsageError before anything is begun."""
    from fednode.client.daemon import run_client
    from fednode.client.page import Page, listen, show
    from fednode.client.snapshot import Watcher

    listening = listen(port)
    terminal.own_page(f"http://localhost:{listening.getsockname()[1]}")
    watcher = Watcher(chosen.name, chosen.central, terminal, clock)

    def beside(ledger: Ledger, sharing: Sharing, approvals: Approvals | None) -> AbstractAsyncContextManager[None]:
        return show(Page(
            watcher=watcher, transcript=transcript, ledger=ledger, sharing=sharing, clock=clock, policy=chosen.policy,
            approvals=approvals,
        ), listening)

    return run_client(chosen, watcher, clock, note, beside)
