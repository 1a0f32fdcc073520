"""A central node whose store holds a thousand clients, some of them with markup in all that a client may say freely."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from fednode.clock import SystemClock
from fednode.core.metrics import Metric
from fednode.core.records import Failure, Offer, Outcome, Round, RunConfig
from fednode.core.status import FailureCode, RoundKind, RunStatus
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore

NUM_CLIENTS = 1_000
MARKUP = "<b>bold</b><img src=x onerror=alert(1)>"
ODD = "hospital-0007"           # its task, version and failures are full of markup
REVOKED = tuple(f"hospital-{number:04d}" for number in range(0, NUM_CLIENTS, 100))


def fill(state_dir: Path) -> None:
    """Before the central node is started. In a thread: the browser of these tests has this one's event loop."""
    state_dir.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _fill(state_dir)).result()
    _break_journal(state_dir)


async def _fill(state_dir: Path) -> None:
    store = await SqlStore.open(state_dir, SystemClock())
    await asyncio.gather(*(store.add_client(_client(number)) for number in range(NUM_CLIENTS)))
    for name in REVOKED:
        await store.revoke_client(name)
    await _failed_run(store)
    await store.close()


def _client(number: int) -> ClientRecord:
    """Every third one offers another task; the later in the list, the longer ago it was seen."""
    name, task = f"hospital-{number:04d}", "lungs" if number % 3 == 0 else "digits"
    if name == ODD:
        task = MARKUP
    offer = Offer(task=task, fingerprint=f"{task}@1", schema={"type": "object"}, metrics=(Metric(name="accuracy"),))
    return ClientRecord(
        id=f"cli_{number:026d}", name=name, public_key=f"{number:064x}", secret_sha256=f"{number:064x}",
        offers=(offer,), versions={"fednode": MARKUP if name == ODD else "0.1.0"},
        last_seen_s=1_700_000_000.0 - number, joined_s=1_600_000_000.0 + number,
    )


async def _failed_run(store: SqlStore) -> None:
    """One that a person gave up after its first round had failed at the odd client."""
    config = RunConfig(
        task="digits", fingerprint="digits@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=1,
        min_updates=1, cohort_fraction=1.0, deadline_s=600.0, seed=7,
    )
    run = await store.create_run(config, (Metric(name="accuracy"),))
    await store.move_run(run.id, RunStatus.RUNNING)
    opened = await store.open_round(Round(
        run_id=run.id, number=0, attempt=1, kind=RoundKind.INIT, cohort=(ODD,), config={}, base_model="", budget_s=60.0,
    ))
    failure = Failure(client=ODD, code=FailureCode.TASK_ERROR, reason=f"reason {MARKUP}", traceback=f"trace {MARKUP}")
    await store.report(opened, Outcome(client=ODD, failure=failure))
    await store.move_run(run.id, RunStatus.CANCELLED, f"given up {MARKUP}", withdraw=True)


def _break_journal(state_dir: Path) -> None:
    """As somebody might who wants another past."""
    with closing(sqlite3.connect(state_dir / "store.sqlite")) as rows, rows:
        rows.execute("UPDATE journal SET entry = replace(entry, 'cancelled', 'completed')")
