"""`fednode central`: the node that orchestrates."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fednode.cli import backup
from fednode.cli import options as o
from fednode.cli.output import Voice, plain
from fednode.cli.site import can_be_read

if TYPE_CHECKING:
    from fednode.central.serve import Serving


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("backup")(plain(backup.backup))
app.command("restore")(plain(backup.restore))


@app.callback(invoke_without_command=True)
@plain
def central(
    context: typer.Context,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. [FEDNODE_HOST; default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", min=0, max=65535, help="[FEDNODE_PORT; default: 5000]")] = None,
    state_dir: o.StateDir = None,
    database: Annotated[str | None, typer.Option("--database", metavar="URL", help="PostgreSQL for its rows, postgresql://USER@HOST/NAME; params stay in the state dir. [FEDNODE_DATABASE; default: SQLite in the state dir]")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new join token; the old one admits nobody any more.")] = False,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate for TLS, in PEM form; its chain may follow it. [FEDNODE_TLS_CERT]")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's private key. [FEDNODE_TLS_KEY]")] = None,
    public_url: Annotated[str | None, typer.Option("--public-url", metavar="URL", help="What a proxy in front makes of this address; pages then need signing in. [FEDNODE_PUBLIC_URL]")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without TLS: params and tokens can be read on the way.")] = False,
) -> None:
    """Orchestrate: owns runs, rounds and params; never sees data."""
    if context.invoked_subcommand:
        return
    from fednode.central.addresses import checked_public_url
    from fednode.central.certificate import load_certificate
    from fednode.central.serve import CentralSettings, serve
    from fednode.clock import SystemClock
    from fednode.logs import configure_logs
    from fednode.settings import load_settings

    configure_logs()
    settings = load_settings(
        host=host, port=port, database=database, tls_cert=tls_cert, tls_key=tls_key, public_url=public_url,
    )
    clock = SystemClock()
    chosen = CentralSettings(
        host=settings.host, port=settings.port, state_dir=state_dir or settings.state_dir / "central",
        database=settings.database, user_state_dir=settings.state_dir, is_new_token=new_token, is_insecure=insecure,
        certificate=load_certificate(settings.tls_cert, settings.tls_key, clock.wall_s()),
        public_url=checked_public_url(settings.public_url),
    )
    asyncio.run(serve(chosen, on_ready=_tell_ready, clock=clock))


def _tell_ready(serving: Serving) -> None:
    """Where it is, how a browser and a client come in, and what can be read on the way."""
    voice = Voice()
    voice.say(f"Central node at {serving.url}  (dashboard and API; state in {serving.state_dir})")
    if serving.is_for_this_machine:
        voice.say(f"On this machine a client joins with: fednode client --central {serving.url} --name NAME")
        return
    for warning in _warnings(serving):
        voice.say(warning, "yellow")
    voice.say(f"A browser signs in, once, with: {serving.sign_in_url}")
    ca = "" if serving.certificate is None else " --ca CERT.pem"
    voice.say(f"A client joins with: fednode client --central {serving.public_url} --name NAME --token {serving.join_token}{ca}")
    if serving.certificate is not None:
        voice.say(f"CERT.pem is a copy of {serving.certificate.cert_path}; no client needs it where a well-known authority signed it.")


def _warnings(serving: Serving) -> list[str]:
    """What a person should know before anybody joins."""
    from urllib.parse import urlsplit

    found = []
    if serving.is_clear:
        found.append("Anybody on the way can read params and tokens: there is no encryption here.")
    elif can_be_read(serving.public_url):
        found.append(f"Anybody on the way to {serving.public_url} can read params and tokens: http is not encrypted.")
    name = urlsplit(serving.public_url).hostname or ""
    if serving.certificate and not serving.certificate.covers(name):
        names = ", ".join(serving.certificate.names)
        found.append(f"Nobody who calls {name} will believe the certificate, which is for {names}.")
    return found
