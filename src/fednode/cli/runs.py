"""`fednode runs`, and what one does to a run: pause, resume, cancel, logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.compare import compare
from fednode.cli.metrics import metrics, tensorboard
from fednode.cli.output import Voice, metrics_text, plain
from fednode.core.units import count_text, number_text, seconds_text, size_text
from fednode.errors import TimedOut

if TYPE_CHECKING:
    from fednode.cli.api import Api

app = typer.Typer(help="What was trained, and what is training.", rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(plain(compare))
app.command()(plain(metrics))
app.command()(plain(tensorboard))


@app.callback(invoke_without_command=True)
@plain
def runs(
    context: typer.Context, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """All runs, newest first."""
    from fednode.cli.api import ask

    if context.invoked_subcommand:
        return
    found = ask(lambda api: api.get("runs"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    elif not found:
        voice.say("No run yet. Start one: fednode run mnist --follow")
    else:
        voice.table(("run", "task", "status", "rounds", "score", "time", "reason"), [_row(run) for run in found])


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"#{run['number']}", run["task"], run["status"], f"{run['rounds']}/{run['rounds_planned']}",
        metrics_text(run["metrics"]), seconds_text(run["seconds"]), run["reason"],
    )


@app.command()
@plain
def show(
    run: o.RunRef, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """One run: its rounds, its config, its model."""
    from fednode.cli.api import ask, quoted

    found = ask(lambda api: api.get(f"runs/{quoted(run)}"), central, token, ca)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
        return
    voice.say(f"Run #{found['number']}  {found['run_id']}  {found['status']}  {found['reason']}".rstrip())
    config = found["config"]
    voice.say(f"{config['task']} ({config['fingerprint']}) by {config['strategy']}, seed {config['seed']}")
    voice.say("  ".join(f"{name}={value}" for name, value in (config["task_config"] | config["strategy_config"]).items()))
    voice.say(f"clients: {', '.join(found['clients']) or 'none'}")
    _tell_rounds(voice, found["history"])
    models = found["models"]
    voice.say(
        f"model {found['model_sha256'] or 'none yet'}; {count_text(models['num_models'], 'model')} "
        f"in {count_text(models['num_files'], 'file')}, {size_text(models['num_bytes'])}"
    )


@app.command()
@plain
def delete(
    run: o.RunRef,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Delete a run that has ended, with its models, for good. Says first what that frees."""
    from fednode.cli.api import ask, quoted

    voice, path = Voice(as_json), f"runs/{quoted(run)}"
    plan = ask(lambda api: api.get(f"{path}/deletion"), central, token, ca)
    voice.note(_what_goes(plan))
    if not yes and is_deletable(plan):
        typer.confirm("Delete it for good?", abort=True, err=True)
    gone = ask(lambda api: api.delete(path), central, token, ca)
    voice.result(gone) if as_json else voice.say(f"Run #{gone['number']} is deleted: {size_text(gone['num_bytes'])} are free.")


def is_deletable(plan: dict[str, Any]) -> bool:
    """Else the central node says why not, and nobody need be asked."""
    return not plan["needed_by"] and plan["status"] in ("completed", "failed", "cancelled")


def _what_goes(plan: dict[str, Any]) -> str:
    return (
        f"Run #{plan['number']} of {plan['task']}, {plan['status']}: {count_text(plan['num_models'], 'model')}, "
        f"{count_text(plan['num_updates'], 'update')} on record, {count_text(plan['num_rows'], 'row')}; "
        f"frees {count_text(plan['num_files'], 'file')} of params, {size_text(plan['num_bytes'])}."
    )


def _tell_rounds(voice: Voice, history: list[dict[str, Any]]) -> None:
    """Newest first; the score of a round's model is measured in the round after it."""
    told = [row for row in history if row["kind"] != "evaluate"]
    names = list(dict.fromkeys(name for row in told for name in row["metrics"]))
    columns, rows = ("round", "status", *names, "updates", "failures"), [_round_row(row, names) for row in told]
    apart = [[client["client"] for client in row["clients"] if client.get("apart")] for row in told]
    if any(apart):
        columns, rows = (*columns, "stands apart"), [(*row, ", ".join(odd)) for row, odd in zip(rows, apart, strict=True)]
    voice.table(columns, rows)


def _round_row(row: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    clients = row["clients"]
    failures = [f"{client['client']}: {client['failure']['reason']}" for client in clients if client["failure"]]
    number = str(row["number"]) + (f" (attempt {row['attempt']})" if row["attempt"] > 1 else "")
    updates = sum(client["num_examples"] is not None for client in clients)
    scores = [number_text(row["metrics"].get(name)) for name in names]
    return (number, row["status"], *scores, f"{updates} of {len(clients)}", "; ".join(failures))


def pause(
    run: o.RunRef,
    now: Annotated[bool, typer.Option("--now", help="Take back what is not reported yet, instead of letting the round end.")] = False,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """Let the open round end, then hold the run."""
    from fednode.wire.messages import PauseRequest

    _act(run, "pause", as_json, (central, token, ca), PauseRequest(now=now))


def resume(
    run: o.RunRef, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """Go on with a paused run, where it stands."""
    _act(run, "resume", as_json, (central, token, ca))


def cancel(
    run: o.RunRef, as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None
) -> None:
    """End a run now; its last committed model stays."""
    _act(run, "cancel", as_json, (central, token, ca))


def _act(run: str, verb: str, as_json: bool, where: tuple[Any, Any, Any], body: Any = None) -> None:
    from fednode.cli.api import ask

    found = ask(lambda api: api.act(run, verb, body), *where)
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    else:
        voice.say(f"Run #{found['number']} is {found['status']}. {found['reason']}".rstrip())


def logs(
    run: o.RunRef,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended; exit 1 unless it completed.")] = False,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="With --follow: leave after 600 or 10m, exit 5. The run goes on.")] = None,
    as_json: o.AsJson = False, central: o.CentralUrl = None, token: o.Token = None, ca: o.Ca = None,
) -> None:
    """What happened in a run, event by event."""
    from fednode.cli.api import ask
    from fednode.cli.events import log_line
    from fednode.cli.run import tell_end

    voice = Voice(as_json)
    timeout_s = None if timeout is None else o.duration_s(timeout)

    def tell(event: dict[str, Any]) -> None:
        voice.result(event) if as_json else voice.say(log_line(event))

    async def read(api: Api) -> dict[str, Any] | None:
        if follow:
            return await _until_its_end(api, run, tell, timeout_s)
        found = await api.events(run)
        if as_json:
            voice.result(found)
        for event in found if not as_json else ():
            tell(event)
        return None

    summary = ask(read, central, token, ca)
    if summary is not None:
        tell_end(voice, summary)


async def _until_its_end(
    api: Api, run: str, tell: Callable[[dict[str, Any]], None], timeout_s: float | None
) -> dict[str, Any]:
    """Raises TimedOut where the run outlasts `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await api.follow(run, tell)
    except TimeoutError:
        raise TimedOut(f"run {run} has not ended within {timeout_s:g} s", fix="it goes on: follow it again") from None
