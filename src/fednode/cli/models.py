"""`fednode models`: what was learnt, and how to take it home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.cli import completion
from fednode.cli import options as o
from fednode.cli.output import Voice, metrics_text, plain
from fednode.core.units import size_text

app = typer.Typer(help="The models of a central node.", rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
@plain
def models(
    context: typer.Context, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """All committed models, newest first."""
    from fednode.cli.api import ask

    if context.invoked_subcommand:
        return
    found = ask(lambda api: api.get("models"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    elif not found:
        voice.say("No model yet. Train one: fednode run mnist --follow")
    else:
        voice.table(("model", "run", "round", "score", "size", "sha256"), [_row(model) for model in found])


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["id"], f"#{model['run_number']}", str(model["round"]), metrics_text(model["metrics"]),
        size_text(model["num_bytes"]), model["sha256"][:12],
    )


@app.command()
@plain
def get(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id or sha256, or the first letters of one.", autocompletion=completion.models)],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [default: MODEL.safetensors]")] = None,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Download a model's params as a safetensors file."""
    from fednode.cli.api import Api, ask, quoted

    async def fetch(api: Api) -> dict[str, Any]:
        found = dict(await api.get(f"models/{quoted(model)}"))
        found["path"] = str((output or Path(f"{found['id']}.safetensors")).resolve())
        await api.download(found["sha256"], Path(found["path"]))
        return found

    found = ask(fetch, central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    else:
        voice.say(f"{found['path']}  {size_text(found['num_bytes'])}  sha256 {found['sha256']}")
