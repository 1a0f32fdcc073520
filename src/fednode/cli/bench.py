"""`fednode bench`: what this machine can do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice, plain

app = typer.Typer(no_args_is_help=True, help="Measure what this machine can do.")

Clients = Annotated[int, typer.Option("--clients", metavar="N", min=1, max=100, help="Client nodes, a process each, which share this machine.")]
Crowd = Annotated[int, typer.Option("--clients", metavar="N", min=1, max=10_000, help="Client nodes, all in one process.")]
Mb = Annotated[float, typer.Option("--mb", metavar="X", min=0.001, max=10_000, help="Megabytes of a model, float32: 0.1 is a small network, 45 a ResNet-18.")]
Repeats = Annotated[int, typer.Option("--repeats", metavar="N", min=1, max=1_000, help="How often it is timed; medians are told.")]


def round_(
    clients: Clients = 2,
    mb: Mb = 10.0,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, max=800, help="Rounds that are timed, after two that are not.")] = 10,
    as_json: o.AsJson = False,
) -> None:
    """Time rounds of real client nodes that send back what they got, beside what this machine could do at best.

    Starts a central node and the clients in a temporary folder; everything is stopped and removed at the end.
    """
    from fednode.bench.round import RoundSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    settings = RoundSettings(clients=clients, mb=mb, rounds=rounds)
    _show(voice, _played(measure(settings, voice.say, SystemClock())))


def aggregate(
    updates: Annotated[int, typer.Option("--updates", metavar="N", min=1, max=1_000, help="Updates of a round.")] = 10,
    mb: Mb = 100.0,
    strategy: Annotated[str, typer.Option("--strategy", metavar="NAME", help="What makes the next model of them.")] = "fedavg",
    repeats: Repeats = 5,
    as_json: o.AsJson = False,
) -> None:
    """Time how fast updates become the next model, and how fast they are checked, beside a bare copy of memory.

    Writes the updates into a temporary folder, which is removed at the end.
    """
    from fednode.bench.aggregate import AggregateSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    settings = AggregateSettings(updates=updates, mb=mb, strategy=strategy, repeats=repeats)
    _show(voice, measure(settings, voice.say, SystemClock()))


def start(
    clients: Clients = 2, mb: Mb = 0.1, repeats: Repeats = 3, as_json: o.AsJson = False,
) -> None:
    """Time the way from nothing to the end of a first round: a central node and its clients, all started at once.

    Each time in a new temporary folder; everything is stopped and removed at the end.
    """
    from fednode.bench.start import StartSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    settings = StartSettings(clients=clients, mb=mb, repeats=repeats)
    _show(voice, _played(measure(settings, voice.say, SystemClock())))


def restart(
    clients: Clients = 2,
    mb: Mb = 0.1,
    outage: Annotated[str, typer.Option("--outage", metavar="TIME", help="How long nobody answers: 5, 1m.")] = "5",
    repeats: Repeats = 5,
    as_json: o.AsJson = False,
) -> None:
    """Time how soon a run goes on after its central node was killed (kill -9), stayed away, and is started again.

    Only processes that it started itself are killed; everything is stopped and removed at the end.
    """
    from fednode.bench.restart import RestartSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    settings = RestartSettings(clients=clients, mb=mb, outage_s=o.duration_s(outage), repeats=repeats)
    _show(voice, _played(measure(settings, voice.say, SystemClock())))


def idle(
    clients: Crowd = 1_000,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, max=1_000, help="How often they are told.")] = 5,
    as_json: o.AsJson = False,
) -> None:
    """Time how soon all of many waiting clients know that a round has begun, and what memory each of them costs.

    Starts a central node of its own in a temporary folder; everything is stopped and removed at the end.
    """
    from fednode.bench.idle import IdleSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    _show(voice, _played(measure(IdleSettings(clients=clients, rounds=rounds), voice.say, SystemClock())))


def live(
    clients: Crowd = 10,
    reports: Annotated[int, typer.Option("--reports", metavar="N", min=1, max=10_000, help="How many scores are reported.")] = 50,
    as_json: o.AsJson = False,
) -> None:
    """Time how soon a score that a client reports while it trains is on an open page of the dashboard.

    Starts a central node of its own in a temporary folder; everything is stopped and removed at the end.
    """
    from fednode.bench.live import LiveSettings, measure
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    _show(voice, _played(measure(LiveSettings(clients=clients, reports=reports), voice.say, SystemClock())))


def swarm(
    clients: Crowd = 1_000,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Rounds of training.")] = 20,
    params: Annotated[int, typer.Option("--params", metavar="N", min=1, help="Numbers in the model, 4 bytes each.")] = 50_000,
    deadline: Annotated[str, typer.Option("--deadline", metavar="TIME", help="The longest that a round may take: 600, 10m.")] = "10m",
    as_json: o.AsJson = False,
) -> None:
    """Play a run with many clients at once that send back what they got, and time its rounds.

    Starts a central node of its own in a temporary folder; everything is stopped and removed at the end.
    """
    from fednode.bench.swarm import SwarmSettings, play
    from fednode.clock import SystemClock

    voice = Voice(as_json)
    settings = SwarmSettings(clients=clients, rounds=rounds, params=params, deadline_s=o.duration_s(deadline))
    result = _played(play(settings, voice.say, SystemClock()))
    if as_json:
        voice.result(result)
    else:
        _tell(voice, result)


def images(
    data: o.Data = None,
    size: Annotated[int, typer.Option("--size", metavar="N", min=16, max=512, help="Pixels a side that images are shrunk to.")] = 64,
    number: Annotated[int, typer.Option("--images", metavar="N", min=1, help="How many of the folder's images to take.")] = 500,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="How often each way is timed; medians are told.")] = 5,
    as_json: o.AsJson = False,
) -> None:
    """Time how fast chest X-rays are decoded and read, beside Pillow alone and beside training.

    Decodes into a temporary folder, which is removed at the end.
    """
    from fednode.bench.images import ImagesSettings, measure
    from fednode.clock import SystemClock
    from fednode.errors import UsageError
    from fednode.settings import load_settings

    folder = load_settings(data=data).data
    if folder is None:
        raise UsageError("no folder of X-rays is named", fix="fednode bench images --data DIR")
    voice = Voice(as_json)
    result = measure(ImagesSettings(data=folder, size=size, images=number, repeats=repeats), voice.say, SystemClock())
    if as_json:
        voice.result(result)
    else:
        _tell_images(voice, result)


def _tell_images(voice: Voice, result: dict[str, Any]) -> None:
    voice.say(f"{result['images']} images of {result['bytes'] / result['images'] / 1000:,.0f} KB, to {result['size']} x {result['size']}, {result['threads']} threads:")
    rows = [(name, *(f"{found[part]:,.0f}" for part in ("median", "min", "max"))) for name, found in result["images_per_s"].items()]
    voice.table(("images a second", "median", "min", "max"), rows)
    voice.table(("ratio", ""), [(name, f"{value:,.2f}") for name, value in result["ratios"].items()])


def _played(play: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return asyncio.run(_interruptible(play))


def _show(voice: Voice, result: dict[str, Any]) -> None:
    """Every figure by its name: those within one are told behind it."""
    if voice.is_json:
        voice.result(result)
        return
    rows = [(name, _shown(value)) for name, value in result.items() if not isinstance(value, dict)]
    parts = [(f"{name}.{part}", _shown(one)) for name, value in result.items() if isinstance(value, dict) for part, one in value.items()]
    voice.table(("figure", ""), rows + parts)


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else "unknown" if value is None else str(value)


async def _interruptible(play: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """SIGTERM ends it as Ctrl-C does: everything is stopped before it goes."""
    task = asyncio.ensure_future(play)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    raise KeyboardInterrupt


def _tell(voice: Voice, result: dict[str, Any]) -> None:
    took, told = result["seconds_per_round"], result["last_told_s"]
    memory = result["central_rss_mb"]
    voice.say(f"A round: {took['median']:.2f} s (median), {took['min']:.2f} to {took['max']:.2f} s")
    voice.say(f"From the first client told of a round to the last: {told['median']:.2f} s (median), at most {told['max']:.2f} s")
    if memory:
        voice.say(f"Central node: at most {memory['peak']:.0f} MB, {memory['anon']:.0f} MB of its own; {result['central_cpu_s']:.1f} s of CPU time")
    voice.say(f"Updates: {result['updates']:,} of {result['clients'] * result['rounds']:,}; errors: {result['errors']}; asked to wait: {result['asked_to_wait']:,} times")
    for error in result["first_errors"]:
        voice.say(f"  {error}", "red")


app.command("round")(plain(round_))
app.command("aggregate")(plain(aggregate))
app.command("start")(plain(start))
app.command("restart")(plain(restart))
app.command("idle")(plain(idle))
app.command("live")(plain(live))
app.command("swarm")(plain(swarm))
app.command("images")(plain(images))
