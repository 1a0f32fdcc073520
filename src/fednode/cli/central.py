"""`fednode central`: the node that orchestrates."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice

if TYPE_CHECKING:
    from fednode.central.serve import Serving


def central(
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. [FEDNODE_HOST; default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", min=0, max=65535, help="[FEDNODE_PORT; default: 5000]")] = None,
    state_dir: o.StateDir = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new join token; the old one admits nobody any more.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without TLS: params and tokens can be read on the way.")] = False,
) -> None:
    """Orchestrate: owns runs, rounds and params; never sees data."""
    from fednode.central.serve import CentralSettings, serve
    from fednode.logs import configure_logs
    from fednode.settings import load_settings

    configure_logs()
    settings = load_settings(host=host, port=port)
    chosen = CentralSettings(
        host=settings.host, port=settings.port, state_dir=state_dir or settings.state_dir / "central",
        user_state_dir=settings.state_dir, is_new_token=new_token, is_insecure=insecure,
    )
    asyncio.run(serve(chosen, on_ready=_tell_ready))


def _tell_ready(serving: Serving) -> None:
    """Where it is, how a client joins, and what can be read on the way."""
    voice = Voice()
    voice.say(f"Central node at {serving.url}  (dashboard and API; state in {serving.state_dir})")
    if serving.is_loopback:
        voice.say(f"On this machine a client joins with: fednode client --central {serving.url} --name NAME")
        return
    voice.say("Anybody on the way can read params and tokens: there is no encryption here.", "yellow")
    voice.say(f"A client joins with: fednode client --central http://THIS-MACHINE:{serving.port} --name NAME --token {serving.join_token}")
    voice.say(f"API and pages need the operator token: {serving.operator_token}")
