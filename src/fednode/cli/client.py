"""`fednode client`: the node beside the data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from fednode.cli import options as o
from fednode.errors import BadConfig

if TYPE_CHECKING:
    from fednode.cli.talk import TerminalTalk
    from fednode.client.ledger import Ledger
    from fednode.client.picture import Transcript
    from fednode.client.sharing import Sharing
    from fednode.client.talk import ClientSettings
    from fednode.ports import Clock
    from fednode.settings import Settings
    from fednode.tasks.base import Partition


def client(
    central: o.CentralUrl = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What this client is called: unique in the federation. [FEDNODE_NAME; default: this machine's name]")] = None,
    data: o.Data = None,
    tasks: o.Tasks = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="K/N", help="Use part K (from 1) of N of a shared data folder.")] = None,
    split: o.Split = "iid",
    partition_seed: o.PartitionSeed = 0,
    offline_sample: o.OfflineSample = False,
    threads: o.Threads = None,
    state_dir: o.StateDir = None,
    token: o.Token = None,
    ca: o.Ca = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Show this client's own page at http://localhost:PORT, to this machine only. [FEDNODE_PAGE_PORT; default: no page]")] = None,
) -> None:
    """Join a federation: train on this machine's data, send back params only. Dials out, never lets anybody in."""
    from fednode.cli.talk import TerminalTalk
    from fednode.client.daemon import run_client
    from fednode.client.picture import Transcript
    from fednode.clock import SystemClock
    from fednode.settings import load_settings, read_note

    settings = load_settings(
        central=central, name=name, data=data, threads=threads, token=token, ca=ca, page_port=port
    )
    chosen = _client_settings(settings, tasks, _partition(partition, split, partition_seed), offline_sample, state_dir)

    def note(url: str) -> str:
        return str(read_note(settings.state_dir, url).get("join_token", ""))

    clock = SystemClock()
    transcript = Transcript(clock)
    with TerminalTalk(transcript.keep) as terminal:
        if _can_be_read(chosen.central):
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
    from fednode.client.picture import Painter

    listening = listen(port)
    terminal.own_page(f"http://localhost:{listening.getsockname()[1]}")
    painter = Painter(chosen.name, chosen.central, terminal, clock)

    def beside(ledger: Ledger, sharing: Sharing) -> AbstractAsyncContextManager[None]:
        page = Page(painter=painter, transcript=transcript, ledger=ledger, sharing=sharing, clock=clock)
        return show(page, listening)

    return run_client(chosen, painter, clock, note, beside)


def _client_settings(
    settings: Settings, tasks: list[str] | None, partition: Partition | None, offline_sample: bool, state_dir: Path | None
) -> ClientSettings:
    from fednode.client.talk import ClientSettings
    from fednode.core.ids import NAME_PATTERN, is_name
    from fednode.settings import pin_of, read_note, url_by_note

    name = settings.name or _machine_name()
    if not is_name(name):
        raise BadConfig(
            f"{name!r} is no name for a client", fix=f"take lower-case letters, digits, '.', '_', '-' ({NAME_PATTERN})"
        )
    url = _checked_url(settings.central)
    note = read_note(settings.state_dir, url)
    return ClientSettings(
        central=url_by_note(url, note), pin=pin_of(note), name=name, data=settings.data, tasks=tuple(tasks or ()),
        partition=partition, offline_sample=offline_sample, threads=settings.threads, token=settings.token,
        state_dir=state_dir or settings.state_dir / "clients" / name, ca=settings.ca,
    )


def _machine_name() -> str:
    return socket.gethostname().split(".")[0].lower()


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig(f"{url!r} is no address of a central node", fix="write it as http://host:5000")
    return url.rstrip("/")


def _can_be_read(url: str) -> bool:
    """Whether the way to the central node is clear text and leaves this machine."""
    host = urlsplit(url).hostname or ""
    return url.startswith("http://") and host not in ("localhost", "::1") and not host.startswith("127.")


def _partition(text: str | None, split: str, seed: int) -> Partition | None:
    from fednode.tasks.partition import parse_partition

    if text is None:
        if split != "iid":
            raise BadConfig(f"--split {split} says how, not which part", fix="add --partition K/N, for example 1/3")
        return None
    return parse_partition(text, split, seed)
