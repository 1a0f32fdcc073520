"""`fednode models`: what was learnt, and how to take it home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.cli import completion
from fednode.cli import options as o
from fednode.cli.output import Voice, metrics_text, plain
from fednode.core.units import count_text, size_text

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id or sha256, the first letters of one, or 12:best, 12:final, 12:7 of a run.", autocompletion=completion.models)]

app = typer.Typer(help="The models of a central node.", rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
@plain
def models(
    context: typer.Context,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run: its number (12 or #12), its id, or the id's first letters.", autocompletion=completion.runs)] = None,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """All committed models, newest first: their scores, which is best and which final, what they take of the disk."""
    from fednode.cli.api import ask, quoted

    if context.invoked_subcommand:
        return
    found = ask(lambda api: api.get("models" if run is None else f"models?run={quoted(run)}"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    elif not found:
        voice.say("No model yet. Train one: fednode run mnist --follow")
    else:
        voice.table(("model", "run", "round", "", "score", "size", "sha256"), [_row(model) for model in found])
        kept = {model["sha256"]: model["num_bytes"] for model in found if model["freed_s"] is None}
        voice.say(f"{count_text(len(found), 'model')} in {count_text(len(kept), 'file')}: {size_text(sum(kept.values()))}")


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["id"], f"#{model['run_number']}", str(model["round"]), ", ".join(model["marks"]),
        metrics_text(model["metrics"]), "freed" if model["freed_s"] else size_text(model["num_bytes"]), model["sha256"][:12],
    )


@app.command()
@plain
def show(
    model: Model, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """A model's card: what it scores, who trained it of what and with what, and where it comes from."""
    from fednode.cli.api import ask, quoted

    card = ask(lambda api: api.get(f"models/{quoted(model)}/card"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(card)
        return
    for line in card_lines(card):
        voice.say(line)
    trained = [
        (one["client"], f"{one['num_examples']:,}", "  ".join(f"{k} {v}" for k, v in one["environment"].items()))
        for one in card["contributions"]
    ]
    voice.table(("client", "examples", "trained with"), trained)


def card_lines(card: dict[str, Any]) -> list[str]:
    """All of a card but its table of clients."""
    found, run = card["model"], card["run"]
    config, parent = run["config"], next(iter(card["lineage"]), None)
    settings = config["task_config"] | {f"strategy.{name}": value for name, value in config["strategy_config"].items()}
    marks = f" ({', '.join(found['marks'])})" if found["marks"] else ""
    return [
        f"Model of run #{run['number']}, round {found['round']}{marks}  {found['id']}",
        f"scores     {metrics_text(found['metrics']) or 'not measured yet'}",
        f"params     {found['num_params']:,}, {size_text(found['num_bytes'])}{', not kept any more' if found['freed_s'] else ''}",
        f"sha256     {found['sha256']}",
        f"made from  {'fresh params' if parent is None else 'run #{run_number}, round {round}  {id}'.format(**parent)}",
        f"trained    {config['fingerprint']} by {config['strategy']}, seed {config['seed']}",
        f"with       {'  '.join(f'{name}={value}' for name, value in settings.items())}",
    ]


@app.command()
@plain
def get(
    model: Model,
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
