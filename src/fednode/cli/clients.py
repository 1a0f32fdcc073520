"""`fednode clients`: who belongs to the federation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fednode.cli import completion
from fednode.cli import options as o
from fednode.cli.output import Voice, plain
from fednode.core.units import seconds_text

ClientName = Annotated[str, typer.Argument(metavar="NAME", help="The client's name.", autocompletion=completion.clients)]
app = typer.Typer(help="The clients of a central node.", rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
@plain
def clients(
    context: typer.Context, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """All clients, in name order."""
    from fednode.cli.api import ask

    if context.invoked_subcommand:
        return
    found = ask(lambda api: api.get("clients"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    elif not found:
        voice.say("No client yet. On the machine with the data: fednode client --central URL --name NAME")
    else:
        voice.table(("client", "status", "heard of", "offers"), [_row(client) for client in found])


def _row(client: dict[str, Any]) -> tuple[str, ...]:
    offers = ", ".join(offer["fingerprint"] for offer in client["offers"])
    return (client["name"], client["status"], f"{seconds_text(client['unheard_s'])} ago", offers)


@app.command()
@plain
def revoke(
    name: ClientName, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """Shut a client out: its secret opens nothing any more."""
    _act(name, "revoke", as_json, (central, token, ca), f"Client {name} is revoked.")


@app.command()
@plain
def rotate(
    name: ClientName, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """Void a client's secret; if it runs it gets a new one by its key, and goes on."""
    _act(name, "rotate", as_json, (central, token, ca), f"The old secret of {name} opens nothing any more.")


def _act(name: str, verb: str, as_json: bool, where: tuple[Any, Any, Any], told: str) -> None:
    from fednode.cli.api import ask

    found = ask(lambda api: api.act_on_client(name, verb), *where)
    voice = Voice(as_json)
    voice.result(found) if as_json else voice.say(told)


@app.command("join-command")
@plain
def join_command(
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What the new client is to be called.")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Make a new join token; the old one admits nobody any more.")] = False,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """What to type on the machine with the data: the command alone on stdout."""
    from fednode.cli.api import ask

    if name is not None:
        _require_name(name)
    facts = ask(lambda api: api.joining(is_new=new_token), central, token, ca)
    command = f"fednode client --central {facts['url']} --name {name or 'NAME'} --token {facts['join_token']}"
    voice = Voice(as_json)
    if as_json:
        voice.result({"command": command, **facts})
        return
    typer.echo(command)
    for line in _beside(facts):
        voice.note(line)


def _require_name(name: str) -> None:
    from fednode.core.ids import NAME_PATTERN, is_name
    from fednode.errors import BadConfig

    if not is_name(name):
        raise BadConfig(f"{name!r} is no name for a client", fix=f"take one that matches {NAME_PATTERN}")


def _beside(facts: dict[str, Any]) -> list[str]:
    """What the person who passes the command on should know."""
    from datetime import UTC, datetime
    from urllib.parse import urlsplit

    from fednode.web.callers import is_loopback_host

    lines = []
    if is_loopback_host(urlsplit(facts["url"]).netloc):
        lines.append("This central node answers this machine only. For others: fednode central --host 0.0.0.0, with TLS.")
    elif facts["url"].startswith("https:"):
        lines.append("Where no well-known authority signed the certificate, add --ca FILE with a copy of it.")
    if facts["expires_s"] is not None:
        until = datetime.fromtimestamp(facts["expires_s"], UTC).astimezone()
        lines.append(f"The token admits new clients until {until:%Y-%m-%d %H:%M}; make a new one with --new-token.")
    return lines
