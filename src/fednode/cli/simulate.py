"""`fednode simulate`: a whole federation in this process, or in as many as there are cores."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice, metrics_text
from fednode.core.units import number_text, seconds_text
from fednode.errors import RunEnded


def simulate(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="What to train: a task's name, or file.py:Class.")] = None,
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=1, help="Simulated clients.")] = 2,
    rounds: o.Rounds = None,
    strategy: o.StrategyName = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    min_updates: o.MinUpdates = None,
    cohort_fraction: o.CohortFraction = None,
    seed: o.Seed = None,
    best_metric: o.BestMetric = None,
    patience: o.Patience = None,
    encoding: o.EncodingName = None,
    sets: o.Sets = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A TOML file with these settings; flags win.")] = None,
    data: o.Data = None,
    split: o.Split = "iid",
    partition_seed: o.PartitionSeed = 0,
    offline_sample: o.OfflineSample = False,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", min=1, help="Processes that train side by side; any number gives the same bits. [default: the cores]")] = None,
    threads: o.Threads = None,
    device: o.Device = None,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="Where clients keep what stays with them between rounds. [default: a temporary folder]")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the final model there.")] = None,
    as_json: o.AsJson = False,
) -> None:
    """Train with simulated clients: the same loop and the same bits as across a network."""
    from fednode.cli.request import run_request
    from fednode.logs import configure_logs
    from fednode.settings import load_settings
    from fednode.simulation.simulate import simulate as simulate_run

    configure_logs("info")          # of tasks: on stderr, as in a client's process
    voice = Voice(as_json)
    settings = load_settings(data=data, threads=threads, device=device)
    request = run_request(
        task, config, sets, rounds=rounds, strategy=strategy, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, min_updates=min_updates, cohort_fraction=cohort_fraction, seed=seed,
        best_metric=best_metric, patience=patience, encoding=encoding,
    )
    result = simulate_run(
        request.task, clients=clients, rounds=request.rounds, strategy=request.strategy,
        strategy_config=request.strategy_config, task_config=request.task_config, data=settings.data, split=split,
        partition_seed=partition_seed, offline_sample=offline_sample, min_updates=request.min_updates,
        cohort_fraction=request.cohort_fraction, seed=request.seed, best_metric=request.best_metric,
        patience=request.patience, encoding=request.encoding, threads=settings.threads, device=settings.device, state_dir=state_dir,
        workers=workers or min(os.cpu_count() or 1, clients), on_event=_teller(voice),
    )
    _tell_result(voice, result, output)


def _teller(voice: Voice) -> Any:
    from fednode.cli.events import event_line

    def tell(event: dict[str, Any]) -> None:
        if line := event_line(event):
            voice.say(line)

    return tell


def _tell_result(voice: Voice, result: Any, output: Path | None) -> None:
    """The last line, and the model where a file was named. Raises RunEnded unless the run completed."""
    from fednode.wire.codec import write_params

    if output is not None and result.params is not None:
        write_params(result.params, output, is_durable=True)
        voice.note(f"Model written to {output}")
    if voice.is_json:
        voice.result({
            "run_id": result.run_id, "status": result.status, "rounds": result.rounds, "metrics": result.metrics,
            "model_sha256": result.model_sha256, "seconds": round(result.seconds, 3), "reason": result.reason,
            "seed": result.seed, "best": None if result.best is None else asdict(result.best),
        })
    else:
        voice.say(f"{result.status} after {result.rounds} rounds and {seconds_text(result.seconds)}, seed {result.seed}")
        if result.status == "completed" and result.reason:
            voice.say(f"It {result.reason}.")
        if result.best is not None and result.best.round != result.rounds:
            voice.say(f"best {result.best.metric} {number_text(result.best.value)}, of round {result.best.round}")
        voice.say(f"{metrics_text(result.metrics)}\nmodel {result.model_sha256}")
    if result.status != "completed":
        raise RunEnded(f"the run {result.status}: {result.reason}", fix="look at the failures above")
