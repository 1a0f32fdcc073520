"""After the central node was away: every client is back within 30 seconds, and they do not all come in the same one."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from federation_scene import Federation
from fednode.bench.clients import Board, SwarmClient, client_name, run_all
from fednode.clock import SystemClock
from fednode.errors import CannotConnect
from fednode.settings import read_note
from fednode.wire.backoff import LAST_RETRY_S, Backoff
from torture_scale import pick

NUM_CLIENTS, AWAY_S = 1_000, 3_600.0
BACK_WITHIN_S, MOST_AT_ONCE = 30.0, 0.2
NUM_REAL, DOWN_S = pick(20, 200), 3.0


def back_after_s() -> float:
    """When a client that is refused at once, from the first second on, makes the first try after `AWAY_S`."""
    wait_for = Backoff()
    now_s = 0.0
    while now_s < AWAY_S:
        now_s += float(wait_for(CannotConnect("nobody is there", fix="wait")))
    return now_s - AWAY_S


def test_after_an_hour_away_a_thousand_clients_are_back_soon_and_not_all_at_once(figures) -> None:
    back_s = [back_after_s() for _ in range(NUM_CLIENTS)]
    of_second = Counter(int(moment_s) for moment_s in back_s)
    figures.note(clients=NUM_CLIENTS, last_back_s=round(max(back_s), 2), most_in_a_second=max(of_second.values()))
    assert max(back_s) <= LAST_RETRY_S < BACK_WITHIN_S       # a try fails at once or waits for its answer
    # By then a wait is evenly spread over 10 s, so the first second after the hour ends 19 % of them.
    assert max(of_second.values()) <= (MOST_AT_ONCE + 0.05) * NUM_CLIENTS


async def test_real_clients_come_back_by_themselves(federation: Federation, figures) -> None:
    federation.start_central()
    note = read_note(Path(federation.env["FEDNODE_STATE_DIR"]), federation.url)
    clock = SystemClock()
    board = Board(num_params=10, clock=clock)
    clients = [
        SwarmClient(client_name(number), federation.url, note["join_token"], board) for number in range(NUM_REAL)
    ]
    swarm = asyncio.ensure_future(run_all(clients))
    try:
        while board.num_there < NUM_REAL:
            assert not swarm.done()
            await asyncio.sleep(0.05)
        await asyncio.to_thread(federation.kill, "central")
        await asyncio.sleep(DOWN_S)
        assert board.num_waits >= NUM_REAL          # everybody has tried in vain, so everybody was away
        await asyncio.to_thread(federation.restart_central)
        began_s = clock.now_s()
        while len(await asyncio.to_thread(_there, federation)) < NUM_REAL:
            assert not swarm.done()
            assert clock.now_s() - began_s < 2 * BACK_WITHIN_S
            await asyncio.sleep(0.1)
        figures.note(clients=NUM_REAL, down_s=DOWN_S, all_back_s=round(clock.now_s() - began_s, 2))
        assert board.errors == []
    finally:
        swarm.cancel()
        await asyncio.gather(swarm, return_exceptions=True)


def _there(federation: Federation) -> list[str]:
    return [row["name"] for row in federation.get("clients") if row["status"] in ("online", "busy")]
