"""How fast the dashboard is when its store holds a long run of many clients: a JSON line.

    python bench/pages.py --rounds 10000 --clients 500

A short run is played by so many clients over real sockets. Then its central node is stopped, its rows are copied in
place until there are as many rounds as were asked for, and it is started again: so the rows are those that it writes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fednode.bench.clients import TASK, client_name
from fednode.bench.crowd import Crowd, gathered
from fednode.bench.line import Line
from fednode.bench.machine import measurement
from fednode.clock import SystemClock
from fednode.errors import CannotConnect
from fednode.ports import Clock
from fednode.wire.messages import RunRequest

PLAYED = 3                      # rounds of training that really happen
TYPICAL = 2                     # the one that is copied: neither the first nor the last
CALM_S = 2.0                    # after all clients are back
TIMEOUT_S = 300.0
MEGABYTE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1_000, help="at least 10")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=20, help="how often each page is asked for")
    asked = parser.parse_args()
    if asked.rounds < 10 or asked.clients < 1 or asked.repeats < 1:
        parser.error("at least 10 rounds, 1 client, 1 repeat")
    figures = asyncio.run(measure(asked.rounds, asked.clients, asked.repeats, SystemClock()))
    sys.stdout.write(json.dumps(measurement("pages", figures)) + "\n")


async def measure(num_rounds: int, num_clients: int, repeats: int, clock: Clock) -> dict[str, Any]:
    async with gathered(1, clock) as crowd:
        await crowd.join(num_clients)
        await crowd.begin(RunRequest(task=TASK, rounds=PLAYED, min_updates=num_clients, keep_every=0))
        run = await crowd.end_of_run(lambda: None)
        await crowd.central.member.stop()
        file, began_s = crowd.central.folder / "central" / "store.sqlite", clock.now_s()
        await asyncio.to_thread(stretch, file, num_rounds)
        filled_s = clock.now_s() - began_s
        sys.stderr.write(f"{num_rounds:,} rounds of {num_clients:,} clients are in the store\n")
        await crowd.central.start_again()
        await until_calm(crowd)
        pages = await times(crowd, paths(num_rounds, run["model_sha256"]), repeats)
        return {
            "rounds": num_rounds, "clients": num_clients, "repeats": repeats,
            "p95_ms": max(page["p95_ms"] for page in pages.values()),
            "most_bytes": max(page["bytes"] for page in pages.values()), "pages": pages,
            "store_mb": round(file.stat().st_size / MEGABYTE), "filled_s": round(filled_s, 1),
            "central_mb": crowd.central.memory_mb(),
        }


def paths(num_rounds: int, model: str) -> Sequence[str]:
    """What a person looks at, and what the pages' scripts ask for."""
    middle = num_rounds // 2
    return (
        "/", "/runs", "/runs/1", f"/runs/1?before={middle}", f"/runs/1?round_number={middle}", "/runs/1/journal",
        "/api/v1/runs/1/curves", "/clients", f"/clients/{client_name(1)}", "/models", f"/models/{model}", "/events",
        "/launch", "/settings",
    )


async def until_calm(crowd: Crowd) -> None:
    """It answers, and whoever was there is back."""
    began_s = crowd.clock.now_s()
    while crowd.clock.now_s() - began_s < TIMEOUT_S:
        crowd.require_alive()
        with suppress(CannotConnect):
            clients = await crowd.http.request("GET", "/api/v1/clients")
            if sum(client["status"] in ("online", "busy") for client in clients) == len(crowd.names):
                return await crowd.clock.sleep(CALM_S)
        await crowd.clock.sleep(0.5)
    raise CannotConnect("not everybody came back", fix="ask for fewer clients, or fewer rounds")


async def times(crowd: Crowd, paths: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """Of each path: how long the answer took, and how large it is. By turns, so that a busy moment meets all alike."""
    line = Line(crowd.central.url, crowd.central.operator_token)
    found: dict[str, list[float]] = {path: [] for path in paths}
    sizes = {}
    for _ in range(repeats):
        for path in paths:
            began_s = crowd.clock.now_s()
            reply = await line.ask("GET", path, timeout_s=TIMEOUT_S)
            found[path].append(1_000 * (crowd.clock.now_s() - began_s))
            sizes[path] = len(reply.content)
            if reply.status != 200:
                raise SystemExit(f"{path} was answered with {reply.status}")
    line.close()
    return {
        path: {"p95_ms": round(float(np.percentile(took, 95)), 1), "bytes": sizes[path]} for path, took in found.items()
    }


def stretch(file: Path, num_rounds: int) -> None:
    """Put copies of a typical round in front of the last one."""
    last = PLAYED + 1                       # the round that measures the last model
    with closing(sqlite3.connect(file)) as c:
        c.execute("PRAGMA synchronous=OFF")
        c.execute("PRAGMA cache_size=-1000000")
        c.execute("UPDATE run SET config = json_set(config, '$.rounds', ?)", (num_rounds,))
        for table in ("round", "assignment", '"update"'):
            c.execute(f"UPDATE {table} SET number = ? WHERE number = ?", (num_rounds + 1, last))
            copy(c, table, "number", TYPICAL, range(last, num_rounds + 1))
        for table in ("evaluation", "metric"):
            c.execute(f"UPDATE {table} SET model_round = ? WHERE model_round = ?", (num_rounds, PLAYED))
            copy(c, table, "model_round", TYPICAL - 1, range(PLAYED, num_rounds))
        c.execute("UPDATE model SET round = ? WHERE round = ?", (num_rounds, PLAYED))
        made = {"id": "'mdl_' || printf('%026d', n)", "sha256": "printf('%064x', n)"}
        copy(c, "model", "round", TYPICAL, range(PLAYED, num_rounds), made)
        of_round = {"fields": "json_set(fields, '$.round', n)"}
        copy(c, "event", "json_extract(fields, '$.round')", TYPICAL, range(last, num_rounds + 1), of_round)
        c.commit()


def copy(
    c: sqlite3.Connection, table: str, column: str, source: int, targets: range, changes: Mapping[str, str] = {}
) -> None:
    """Every row in which `column` is `source`, again for each of `targets`, with these changes: `n` is the target."""
    names = [row[1] for row in c.execute(f"PRAGMA table_info({table})") if (table, row[1]) != ("event", "seq")]
    values = [changes.get(name, "n" if name == column else f"copied.{name}") for name in names]
    c.execute(
        f"WITH RECURSIVE series(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM series WHERE n + 1 < ?) "
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM series CROSS JOIN (SELECT * FROM {table} WHERE {column} = ?) AS copied",
        (targets.start, targets.stop, source),
    )


if __name__ == "__main__":
    main()
