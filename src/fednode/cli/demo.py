"""`fednode demo`: a federation of real processes on this machine, training a small network."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.compare import tell_alone
from fednode.cli.output import Voice
from fednode.core.units import count_text, size_text

if TYPE_CHECKING:
    from fednode.demo.federation import Demo, DemoSettings


def demo(
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=1, max=50, help="Client nodes.")] = 3,
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="What to train: mnist or chest_xray.")] = "mnist",
    data: o.Data = None,
    rounds: Annotated[int | None, typer.Option("--rounds", metavar="N", min=1, help="Rounds of training. [default: so many as take about a minute]")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", min=1, max=65535, help="Of the dashboard. [default: 5000, or a free one]")] = None,
    state_dir: o.StateDir = None,
    leave: Annotated[bool, typer.Option("--exit", help="End after the training, also on a terminal.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Watch a federation learn: a central node and its clients, real processes, real HTTP.

    With --data on that folder, which the clients share; without on what comes with fednode.
    """
    from fednode.demo.federation import DemoSettings
    from fednode.demo.tasks import demo_task
    from fednode.settings import load_settings

    chosen, user_state_dir = demo_task(task), load_settings().state_dir
    settings = DemoSettings(
        task=chosen, data=data, clients=clients, rounds=rounds or chosen.rounds, port=port, state_dir=state_dir,
        user_state_dir=user_state_dir,
    )
    stays = sys.stdout.isatty() and not (leave or as_json)
    asyncio.run(_interruptible(_play(Voice(as_json), settings, stays)))


async def _interruptible(play: Any) -> None:
    """SIGTERM ends the demo as Ctrl-C does: everything is stopped before it goes."""
    task = asyncio.ensure_future(play)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return
    raise KeyboardInterrupt


async def _play(voice: Voice, settings: DemoSettings, stays: bool) -> None:
    from fednode.demo.federation import demo_federation

    await _tell_data(voice, settings)
    voice.say(f"Starting a central node and {settings.clients} client nodes, each a process of its own ...")
    async with demo_federation(settings) as demo:
        voice.say(f"Dashboard: {demo.url}")
        summary = await demo.train(settings, _teller(voice, settings.rounds))
        demo.require_completed(summary)
        model = demo.models_dir / f"{summary['model_sha256']}.safetensors"
        _tell_end(voice, model, summary, settings)
        alone = await _train_alone(voice, demo, settings, summary)
        if voice.is_json:
            told = {"model_path": str(model), "url": demo.url, "alone": alone, "data": _data_text(settings)}
            voice.result(summary | told)
        if stays:
            voice.note("The dashboard stays up. Ctrl-C ends the demo; what it learnt is kept.")
            await asyncio.Event().wait()


def _teller(voice: Voice, rounds: int) -> Any:
    from fednode.cli.events import event_line

    def tell(event: dict[str, Any]) -> None:
        if line := event_line(event, rounds):
            voice.say(line)

    return tell


async def _tell_data(voice: Voice, settings: DemoSettings) -> None:
    """What is trained on, before anything starts. Raises DataError where it cannot be."""
    from fednode.cli.data_report import tell_report
    from fednode.clock import SystemClock
    from fednode.demo.federation import look_at

    voice.say(f"Data: {_data_text(settings)}, cut unevenly ({settings.split}).")
    if (report := await look_at(settings, SystemClock())) is not None:
        tell_report(voice, report)


def _data_text(settings: DemoSettings) -> str:
    return settings.task.sample if settings.data is None else str(settings.data)


def _tell_end(voice: Voice, model: Path, summary: dict[str, Any], settings: DemoSettings) -> None:
    task = settings.task
    voice.say(f"Model: {model} ({size_text(model.stat().st_size)})")
    voice.say(f"Final test {task.metric}: {summary['metrics'][task.metric]:.4f}")
    for caution in (task.caution_of_sample if settings.data is None else "", task.caution):
        if caution:
            voice.say(caution, "yellow")


async def _train_alone(voice: Voice, demo: Demo, settings: DemoSettings, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Why one would federate: what each client reaches with its own images only."""
    if settings.clients > 1:
        voice.say(f"\nNow each client alone, on its own images: {settings.clients} runs side by side, {count_text(settings.rounds, 'round')} each ...")
    alone = await demo.train_alone(settings, summary)
    if alone is not None:
        tell_alone(voice, alone)
    return alone
