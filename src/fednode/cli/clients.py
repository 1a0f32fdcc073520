"""`fednode clients`: who belongs to the federation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice, plain, seconds_text

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
    name: Annotated[str, typer.Argument(metavar="NAME", help="The client's name.")],
    central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Shut a client out: its secret opens nothing any more."""
    from fednode.cli.api import ask

    ask(lambda api: api.revoke(name), central, token, ca)
    Voice().say(f"Client {name} is revoked.")
