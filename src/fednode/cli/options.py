"""Options that several commands share, each written once, and how their values are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.cli import completion
from fednode.core.units import seconds_of
from fednode.errors import BadConfig


def duration_s(text: str) -> float:
    """`600`, `600s`, `10m`, `2h`, `1d` in seconds."""
    seconds = seconds_of(text)
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 600, 90s, 10m, 2h or 1d")
    return seconds


def parse_sets(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """`["task.model=cnn", "strategy.momentum=0.9"]` as {"task": {...}, "strategy": {...}}. Raises BadConfig."""
    found: dict[str, dict[str, Any]] = {"task": {}, "strategy": {}}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        group, is_field, name = key.strip().partition(".")
        if not (is_pair and is_field and name and group in found):
            raise BadConfig(
                f"--set {pair!r} is not of the form task.FIELD=VALUE or strategy.FIELD=VALUE",
                fix="for example: --set task.model=cnn --set strategy.momentum=0.9",
            )
        found[group][name] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def split_names(text: str | None) -> list[str]:
    """`a,b` as ["a", "b"]."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


CentralUrl = Annotated[
    str | None,
    typer.Option("--central", metavar="URL", help="The central node. [FEDNODE_CENTRAL; default: http://localhost:5000]"),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help="What opens the central node, where it is not this user's own machine. [FEDNODE_TOKEN]"),
]
Ca = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificate authority of a central node with TLS. [FEDNODE_CA]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="Where what must not be lost is kept.")
]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The folder with this site's data. [FEDNODE_DATA]")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="TASK", help="A task to offer: its name, or file.py:Class. Repeatable. Default: every one whose data is here."),
]
Split = Annotated[str, typer.Option("--split", metavar="HOW", help="How shared data is cut: iid, dirichlet:ALPHA, shards:N.")]
PartitionSeed = Annotated[int, typer.Option("--partition-seed", metavar="N", help="Seed of the cut, apart from the run's.")]
OfflineSample = Annotated[bool, typer.Option("--offline-sample", help="Use what comes with fednode: a sample of MNIST, and for chest_xray synthetic pictures, drawn by it.")]
Threads = Annotated[str | None, typer.Option("--threads", metavar="N", help="Threads of training, or `auto`. [FEDNODE_THREADS; default: 1]")]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1, mps, or auto: the best that is there. [FEDNODE_DEVICE; default: cpu]")]
RunRef = Annotated[str, typer.Argument(metavar="RUN", help="The run: its number (12 or #12), its id, or the id's first letters.", autocompletion=completion.runs)]

Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="Passes over the local data in one round. [default: the task's]")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Examples in one step. [default: the task's]")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", metavar="X", help="Step size of local training. [default: the task's]")]
Rounds = Annotated[int | None, typer.Option("--rounds", metavar="N", help="Rounds of training. [default: the task's]")]
StrategyName = Annotated[str | None, typer.Option("--strategy", metavar="NAME", help="fedavg, fedavgm, fedadam, fedyogi, fedadagrad, fedprox, median, trimmed_mean, multi_krum, geometric_median, centered_clipping, or one of your own (in a simulation also file.py:Class). [default: fedavg]")]
MinUpdates = Annotated[int | None, typer.Option("--min-updates", metavar="N", help="Fewer updates make no model. [default: 2, or 1 for a single client]")]
CohortFraction = Annotated[float | None, typer.Option("--cohort-fraction", metavar="X", help="Share of the clients asked in each round. [default: 1.0]")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="The run's seed: the same seed gives the same model. [default: drawn, and told]")]
BestMetric = Annotated[str | None, typer.Option("--best-metric", metavar="NAME", help="By which the best model is told: a metric of the task with a goal. [default: its first, of held-back data where it has one]")]
Patience = Annotated[int | None, typer.Option("--patience", metavar="N", help="Stop after so many rounds without a better model. [default: never]")]
EncodingName = Annotated[str | None, typer.Option("--encoding", metavar="NAME", help="How params travel: f32, or bf16: half the bytes, each value rounded by 0.4 % at most. [default: f32]")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: task.FIELD=VALUE or strategy.FIELD=VALUE. Repeatable.")]
