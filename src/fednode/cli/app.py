"""The tree of commands. What a command does lives in the file of its group."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fednode.cli import (
    bench,
    central,
    client,
    clients,
    config,
    demo,
    doctor,
    models,
    predict,
    run,
    runs,
    simulate,
    task,
)
from fednode.cli.output import Command, plain

_ORDER = (
    "demo", "central", "client", "run", "runs", "logs", "pause", "resume", "cancel", "clients", "models", "predict",
    "simulate", "task", "doctor", "bench", "config",
)


class _InOrder(TyperGroup):
    """The commands as a person meets them, groups among them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_InOrder, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="A federated learning network: a central node, client nodes, and training that loses nothing.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        from fednode import __version__

        typer.echo(f"fednode {__version__}")
        raise typer.Exit


@app.callback()
def fednode(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A federated learning network: a central node, client nodes, and training that loses nothing."""


_COMMANDS: dict[str, Command] = {
    "demo": demo.demo,
    "run": run.run,
    "simulate": simulate.simulate,
    "pause": runs.pause,
    "resume": runs.resume,
    "cancel": runs.cancel,
    "logs": runs.logs,
    "predict": predict.predict,
    "doctor": doctor.doctor,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(plain(_command))
app.add_typer(central.app, name="central")
app.add_typer(client.app, name="client")
app.add_typer(runs.app, name="runs")
app.add_typer(clients.app, name="clients")
app.add_typer(models.app, name="models")
app.add_typer(task.app, name="task")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")


def main() -> None:
    """The entry point of the `fednode` command."""
    app(prog_name="fednode")
