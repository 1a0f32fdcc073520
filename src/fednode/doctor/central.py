"""The central nodes of this user: who has the port, who answers, who may join, how many clients are there."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from fednode.central.tokens import SECONDS_OF_A_DAY
from fednode.doctor.findings import Finding, bad, doubtful, good, of_error
from fednode.errors import FednodeError
from fednode.ports import Clock
from fednode.settings import Settings, note_path, pin_of
from fednode.web.callers import is_loopback_host
from fednode.wire.http import Http

SCARCE_DAYS = 2.0


async def central(settings: Settings, clock: Clock) -> list[Finding]:
    """The port, then the central nodes that left a note."""
    notes = _notes(settings.state_dir)
    running = [found for port, note in notes.items() for found in await _running(port, note, clock)]
    if not running:
        running = [good("central node", "none of this user runs; start one: fednode central")]
    return [await _port(settings, notes.get(settings.port, {})), *running]


def _notes(user_state_dir: Path) -> dict[int, dict[str, Any]]:
    """What central nodes of this user left about themselves, by port."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(note_path(user_state_dir, 0).parent.glob("*.json")):
        try:
            found[int(path.stem)] = dict(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return found


async def _port(settings: Settings, note: dict[str, Any]) -> Finding:
    trouble = _bind_trouble(settings.host, settings.port)
    if not trouble:
        return good("port", f"{settings.port} is free")
    if trouble != errno.EADDRINUSE:
        told = f"{settings.port} of {settings.host} cannot be opened: {os.strerror(trouble)}"
        return bad("port", told, "name an address of this machine by --host, and a --port above 1023", exit_code=2)
    if note and _is_alive(note):
        return good("port", f"{settings.port} is this user's central node's (process {note['pid']})")
    is_ours = await _is_central_node(f"http://localhost:{settings.port}")
    who = "a central node of somebody else's" if is_ours else _holder(settings.port) or "another program"
    airplay = ", or switch the AirPlay receiver off" if os.uname().sysname == "Darwin" else ""
    return doubtful("port", f"{who} has port {settings.port}", f"stop it{airplay}, or choose another with --port")


async def _running(port: int, note: dict[str, Any], clock: Clock) -> list[Finding]:
    url = str(note.get("url", f"http://localhost:{port}"))
    if not _is_alive(note):
        return [doubtful(
            "central node", f"the one at {url} was killed, or this machine went down", "start it again: it goes on"
        )]
    try:
        async with Http(url, token=str(note.get("operator_token", "")), pin=pin_of(note)) as http:
            version = (await http.request("GET", "/api/v1/whoami"))["version"]
            clients = await http.request("GET", "/api/v1/clients")
            joining = await http.request("GET", "/api/v1/tokens/join")
    except FednodeError as error:
        return [of_error("central node", error)]
    return [
        good("central node", f"fednode {version} answers at {url} (process {note['pid']})"),
        _clients(clients), _way(joining), _join_token(joining, clock),
    ]


def _clients(clients: list[dict[str, Any]]) -> Finding:
    there = sum(client["status"] in ("online", "busy") for client in clients)
    if clients and not there:
        return doubtful("clients", f"0 of {len(clients)} are there", "start them: fednode client on their machines")
    return good("clients", f"{there} of {len(clients)} are there")


def _way(joining: dict[str, Any]) -> Finding:
    url = str(joining["url"])
    if url.startswith("https:"):
        return good("encryption", f"others come by {url}")
    if is_loopback_host(url.removeprefix("http://")):
        return good("encryption", "none, and nobody outside this machine can come")
    return doubtful(
        "encryption", f"none: what goes to {url} can be read on the way",
        "start it with --tls-cert and --tls-key, or behind a proxy with --public-url https://...",
    )


def _join_token(joining: dict[str, Any], clock: Clock) -> Finding:
    if joining["expires_s"] is None:
        return good("join token", "does not grow old: only this machine can use it")
    days = (joining["expires_s"] - clock.wall_s()) / SECONDS_OF_A_DAY
    fix = "make a new one: fednode clients join-command --new-token"
    if days <= 0:
        return doubtful("join token", "is too old: nobody can join", fix)
    told = f"admits new clients for another {days:.1f} days"
    return doubtful("join token", told, fix) if days < SCARCE_DAYS else good("join token", told)


# --- who has a port -----------------------------------------------------------------------------------


def _bind_trouble(host: str, port: int) -> int:
    """The errno by which the system refuses this port; 0 where it does not."""
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return 0


def _is_alive(note: dict[str, Any]) -> bool:
    try:
        os.kill(int(note.get("pid", 0)) or -1, 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return int(note["pid"]) > 0


async def _is_central_node(url: str) -> bool:
    try:
        async with Http(url) as http:
            return "fednode-protocol" in (await http.look("/healthz")).headers
    except FednodeError:
        return False


def _holder(port: int) -> str:
    """`process 12 (python3)`, where this system and its permissions tell."""
    inodes = {row[9] for row in _listening() if int(row[1].rpartition(":")[2], 16) == port}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
            if found and found[1] in inodes:
                return f"process {link.parts[2]} ({(Path('/proc') / link.parts[2] / 'comm').read_text().strip()})"
        except OSError:
            continue
    return ""


def _listening() -> list[list[str]]:
    """Rows of the kernel's tables of TCP sockets that listen."""
    rows: list[list[str]] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows += [row.split() for row in Path(table).read_text().splitlines()[1:]]
    return [row for row in rows if row[3] == "0A"]
