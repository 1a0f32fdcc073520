"""A process that plays rounds on a store until it is killed, and says what was acknowledged.

Run as `python endless_run.py STATE_DIR`. Each line of its output is one acknowledgement.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from store_scenes import AnyStore, a_round, brought, measured, params, running

from fednode.clock import SystemClock
from fednode.core.records import Position, Round, Run, State
from fednode.store.sql import SqlStore

CLIENTS = ("a", "b", "c")


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def play_round(store: AnyStore, run: Run, position: Position) -> None:
    number = position.next_round
    opened = position.open_round or await store.open_round(next_round(run, position))
    for place, client in enumerate(opened.cohort):
        outcome = brought(client, float(number), float(place), evaluation=measured(1, 2, 0.5) if number else None)
        await store.report(opened, outcome)
        say("reported", number, client)
    state = State(params=params(float(number), 1.0), memory={"velocity": params(float(number))})
    await store.commit_round(opened, await store.outcomes(opened), state)
    say("committed", number)


def next_round(run: Run, position: Position) -> Round:
    base = position.checkpoint.model_sha256 if position.checkpoint else ""
    return a_round(run, position.next_round, *(CLIENTS if position.next_round else ("a",)), base=base)


async def play_for_ever(state_dir: Path) -> None:
    store = await SqlStore.open(state_dir, SystemClock())
    run = next(iter(await store.runs()), None) or await running(store, rounds=1_000_000)
    say("ready")
    while True:
        await play_round(store, run, await store.position(run.id))


if __name__ == "__main__":
    asyncio.run(play_for_ever(Path(sys.argv[1])))
