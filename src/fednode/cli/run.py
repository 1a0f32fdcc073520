"""`fednode run`: ask the central node for a run, and follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.cli import completion
from fednode.cli import options as o
from fednode.cli.output import Voice, metrics_text
from fednode.core.units import seconds_text
from fednode.errors import RunEnded
from fednode.own_code import is_file_spec, refusal_of_file


def run(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="What to train: a task that the clients offer.", autocompletion=completion.tasks)] = None,
    rounds: o.Rounds = None,
    strategy: o.StrategyName = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    min_updates: o.MinUpdates = None,
    cohort_fraction: o.CohortFraction = None,
    deadline: Annotated[str | None, typer.Option("--deadline", metavar="TIME", help="A round's budget of up-time: 600 or 10m. [default: 600]")] = None,
    seed: o.Seed = None,
    start_from: Annotated[str | None, typer.Option("--start-from", metavar="MODEL", help="fresh, latest, or a model: its id, 12:best, 12:final, 12:ROUND. [default: fresh]")] = None,
    best_metric: o.BestMetric = None,
    patience: o.Patience = None,
    keep_every: Annotated[int | None, typer.Option("--keep-every", metavar="K", help="Keep one model in K, besides the first, best and last; 0: only these. [default: all up to 100 rounds, then about 100]")] = None,
    encoding: o.EncodingName = None,
    clients: Annotated[str | None, typer.Option("--clients", metavar="A,B", help="Exactly these clients. [default: whoever offers the task]")] = None,
    sets: o.Sets = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A TOML file with these settings; flags win.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run has ended; exit 1 unless it completed.")] = False,
    as_json: o.AsJson = False,
    central: o.CentralUrl = None,
    token: o.Token = None,
    ca: o.Ca = None,
) -> None:
    """Train a task on the clients of a central node."""
    from fednode.cli.api import Api, ask
    from fednode.cli.request import run_request

    voice = Voice(as_json)
    request = run_request(
        task, config, sets, rounds=rounds, strategy=strategy, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, min_updates=min_updates, cohort_fraction=cohort_fraction, deadline=deadline,
        seed=seed, start_from=start_from, clients=o.split_names(clients) or None, best_metric=best_metric,
        patience=patience, keep_every=keep_every, encoding=encoding,
    )
    if is_file_spec(request.strategy):
        raise refusal_of_file(request.strategy)

    async def start(api: Api) -> dict[str, Any]:
        accepted = await api.start_run(request)
        if not follow:
            return accepted
        voice.note(f"Run #{accepted['number']} accepted ({accepted['run_id']}), seed {accepted['config']['seed']}.")
        return await api.follow(accepted["run_id"], teller(voice, accepted["rounds_planned"]))

    summary = ask(start, central, token, ca)
    tell_end(voice, summary) if follow else _tell_accepted(voice, summary)


def _tell_accepted(voice: Voice, summary: dict[str, Any]) -> None:
    if voice.is_json:
        voice.result(summary)
        return
    typer.echo(summary["run_id"])
    voice.note(f"Run #{summary['number']} accepted. Follow it: fednode logs {summary['number']} --follow")


def teller(voice: Voice, rounds: int | None = None) -> Any:
    """Tells events: one JSON object a line, or a line for people where an event deserves one."""
    from fednode.cli.events import event_line

    def tell(event: dict[str, Any]) -> None:
        if voice.is_json:
            voice.result(event)
        elif line := event_line(event, rounds):
            voice.say(line)

    return tell


def tell_end(voice: Voice, summary: dict[str, Any]) -> None:
    """The last word of a followed run. Raises RunEnded (exit code 1) unless it completed."""
    if voice.is_json:
        voice.result(summary)
    else:
        voice.say(
            f"Run #{summary['number']} {summary['status']} after {summary['rounds']} rounds and "
            f"{seconds_text(summary['seconds'])}: {metrics_text(summary['metrics']) or 'no score'}"
        )
        if summary["status"] == "completed" and summary["reason"]:
            voice.say(f"It {summary['reason']}.")
        voice.say(f"Model {summary['model_sha256']}" if summary["model_sha256"] else "No model was made.")
    if summary["status"] != "completed":
        raise RunEnded(
            f"run #{summary['number']} {summary['status']}: {summary['reason'] or 'no reason was given'}",
            fix=f"see what happened: fednode logs {summary['number']}",
        )
