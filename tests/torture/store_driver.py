"""A short run on a real store without the web: what is killed, refused and cut off in the tests of its system calls.

`python store_driver.py STATE_DIR ACKS` plays the run (three rounds, two clients, FedAvgM) to its end. An update goes
the way of a served one: `Uploads`, a file in `incoming`, `SqlStore.report`. Each acknowledgement becomes a line of
ACKS once it was given, by `writev`, which nothing else here uses. `require_kept` holds a store against such lines.

Threads apart from the writer's are taken out: strace counts calls by thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from sqlalchemy import select, text

from fednode.central.uploads import Uploads
from fednode.clock import HandClock
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Outcome, Round, Run, RunConfig, Update
from fednode.core.status import RoundKind, RunStatus
from fednode.errors import FednodeError, StoreError
from fednode.rounds import run_rounds
from fednode.store import rows, schema
from fednode.store.sql import SqlStore
from fednode.strategies.fedavgm import FedAvgM
from fednode.wire.codec import digest_of_file, encode, read_params, sha256_of_file
from fednode.wire.messages import Announcement

CLIENTS = {"a": 1.0, "b": 4.0}         # what each adds to half of every element
WIDTH = 2_500                           # floats of the model: a file of three pages, which power can tear
PATIENCE = 5                            # how often what the disk refused is tried again
ROUNDS = 2

Ack = dict[str, Any]
Tell = Callable[[Ack], None]


@dataclass(frozen=True)
class End:
    """What a run must end with, whatever befell it."""

    model_sha256: str
    metrics: tuple[tuple[Any, ...], ...]
    journal_hash: str


class Inline(ThreadPoolExecutor):
    """Runs everything at once, in the thread that asks."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **named))
        except Exception as error:
            done.set_exception(error)
        return done


class Site:
    """The fleet: clients that compute at once and bring what they have as the real ones do, until it is taken."""

    def __init__(self, store: SqlStore, uploads: Uploads, tell: Tell) -> None:
        self._store, self._uploads, self._tell = store, uploads, tell

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        return tuple(CLIENTS)

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        self._tell({"what": "opened", "number": round_.number, "attempt": round_.attempt})
        known = {outcome.client: outcome for outcome in await self._store.outcomes(round_)}
        for client in round_.cohort:
            yield known[client] if client in known else await self._work(round_, client)

    async def _work(self, round_: Round, client: str) -> Outcome:
        base = read_params(self._store.model_path(round_.base_model)) if round_.base_model else None
        if base is None:
            return await self._bring(round_, client, Params({"w": np.arange(WIDTH, dtype=np.float32)}), None)
        off = float(np.abs(base["w"] - CLIENTS[client]).mean())
        measured = Metrics(values={"loss": off}, num_examples={"test": 3})
        await self._store.report_evaluation(round_, client, measured)
        self._tell({"what": "evaluation", "model_round": round_.model_round, "client": client})
        if round_.kind is RoundKind.EVALUATE:
            return Outcome(client=client, evaluation=measured)
        made = Params({"w": (base["w"] * np.float32(0.5) + np.float32(CLIENTS[client])).astype(np.float32)})
        return await self._bring(round_, client, made, measured)

    async def _bring(self, round_: Round, client: str, made: Params, measured: Metrics | None) -> Outcome:
        body = encode(made)
        announced = Announcement(
            num_bytes=len(body), digest=xxhash.xxh3_128_hexdigest(body), num_examples=5, environment={}
        )
        outcome = Outcome(client=client, update=Update(client=client, params=made, num_examples=5))
        await _until_taken(lambda: self._send(round_, outcome, announced, body))
        ack = {"what": "update", "number": round_.number, "attempt": round_.attempt, "client": client}
        self._tell(ack | {"digest": announced.digest})
        return Outcome(client=client, update=outcome.update, evaluation=measured)

    async def _send(self, round_: Round, outcome: Outcome, announced: Announcement, body: bytes) -> None:
        """As `updates_api` takes a body, from wherever it stands."""
        upload = await self._uploads.announce(round_, outcome.client, announced)
        if not upload.is_complete:
            await self._uploads.receive(upload, _chunks(body[upload.offset:]))
        await self._uploads.require_arrived(upload)
        blob = await self._uploads.require_sound(upload)
        try:
            await self._store.report(round_, outcome, blob)
        except FednodeError:
            self._uploads.drop(upload)
            raise
        self._uploads.forget(upload)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 4_000):
        yield body[start:start + 4_000]


async def _until_taken(send: Callable[[], Any]) -> None:
    """A client tries again whenever it is told 5xx."""
    for left in reversed(range(PATIENCE)):
        try:
            await send()
            return
        except (FednodeError, OSError):
            if not left:
                raise


async def play(state_dir: Path, tell: Tell = lambda ack: None, *, is_alone: bool = False) -> End:
    """The run, begun or gone on with, to its end."""
    if is_alone:
        asyncio.get_running_loop().set_default_executor(Inline(1))
    clock = HandClock()
    store = await SqlStore.open(state_dir, clock)
    try:
        if is_alone:
            store._threads = Inline(1)
        uploads = Uploads(store, clock, max_model_bytes=1 << 30)
        run = await _run_of(store, tell)
        await _play_on(run, Site(store, uploads, tell), store, tell)
        return await store.read(lambda c: _end(c, run.id))
    finally:
        await store.close()


async def _run_of(store: SqlStore, tell: Tell) -> Run:
    found = await store.runs()
    run = found[0] if found else await store.create_run(CONFIG, (Metric(name="loss", goal="min"),))
    tell({"what": "run", "id": run.id})
    if run.status is RunStatus.QUEUED:
        run = await store.move_run(run.id, RunStatus.RUNNING)
        tell({"what": "running", "id": run.id})
    return run


async def _play_on(run: Run, site: Site, store: SqlStore, tell: Tell) -> None:
    """As the central node plays a run: where the store cannot be written it begins anew from what is committed."""
    for left in reversed(range(PATIENCE)):
        try:
            if (await store.run(run.id)).status is not RunStatus.COMPLETED:
                await run_rounds(run, FedAvgM(), site, store)
            sha256 = await store.read(lambda c: c.execute(select(schema.model.c.sha256)).scalars().all())
            tell({"what": "ended", "models": sha256})
            return
        except StoreError as error:
            tell({"what": "halted", "code": error.code})
            if not left:
                raise


CONFIG = RunConfig(
    task="toy", fingerprint="toy@1", task_config={}, strategy="fedavgm", strategy_config={}, rounds=ROUNDS,
    min_updates=2, cohort_fraction=1.0, deadline_s=600.0, seed=7,
)


def _end(c: Any, run_id: str) -> End:
    models, journal = schema.model, schema.journal
    sha256 = c.execute(select(models.c.sha256).order_by(models.c.round.desc())).scalar()
    last = c.execute(select(journal.c.hash).where(journal.c.run_id == run_id).order_by(journal.c.seq.desc())).scalar()
    table = schema.metric
    wanted = (table.c.model_round, table.c.client, table.c.phase, table.c.step, table.c.name, table.c.value)
    return End(sha256, tuple(sorted(tuple(row) for row in c.execute(select(*wanted)))), last)


# --- what was acknowledged ---------------------------------------------------------------------------------


async def require_kept(state_dir: Path, acks: list[Ack]) -> None:
    """Open the store, and fail where anything that was acknowledged is not there."""
    store = await SqlStore.open(state_dir, HandClock())
    try:
        await store.read(lambda c: _require_kept(c, state_dir / "params", acks))
    finally:
        await store.close()


def _require_kept(c: Any, params: Path, acks: list[Ack]) -> None:
    assert c.execute(text("pragma integrity_check")).scalar() == "ok"
    for sha256 in c.execute(select(schema.model.c.sha256)).scalars():
        assert sha256_of_file(params / "models" / f"{sha256}.safetensors") == sha256
    for ack in acks:
        _KEPT[ack["what"]](c, params, ack)
    for row in c.execute(select(schema.update)).mappings():
        if row["number"] > rows.last_committed(c, row["run_id"]):
            assert digest_of_file(params / row["path"]) == row["digest"], row["path"]


def _one(c: Any, table: Any, ack: Ack, *keys: str) -> Any:
    found = c.execute(select(table).filter_by(**{key: ack[key] for key in keys})).mappings().first()
    assert found is not None, f"acknowledged and lost: {ack}"
    return found


def _keeps_update(c: Any, params: Path, ack: Ack) -> None:
    assert _one(c, schema.update, ack, "number", "attempt", "client")["digest"] == ack["digest"]


def _keeps_end(c: Any, params: Path, ack: Ack) -> None:
    assert c.execute(select(schema.model.c.sha256)).scalars().all() == ack["models"]
    assert c.execute(select(schema.run.c.status)).scalar() == "completed"


_KEPT: dict[str, Callable[[Any, Path, Ack], Any]] = {
    "run": lambda c, params, ack: _one(c, schema.run, ack, "id"),
    "running": lambda c, params, ack: _one(c, schema.run, ack, "id")["status"] != "queued" or _fail(ack),
    "opened": lambda c, params, ack: _one(c, schema.round_, ack, "number", "attempt"),
    "evaluation": lambda c, params, ack: _one(c, schema.evaluation, ack, "model_round", "client"),
    "update": _keeps_update,
    "ended": _keeps_end,
    "halted": lambda c, params, ack: None,
}


def _fail(ack: Ack) -> None:
    raise AssertionError(f"acknowledged and lost: {ack}")


def acks_in(path: Path) -> list[Ack]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(state_dir: Path, acks: Path) -> None:
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asyncio.run(play(state_dir, lambda ack: _write(file, ack), is_alone=True))


def _write(file: int, ack: Ack) -> None:
    os.writev(file, [json.dumps(ack).encode() + b"\n"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
