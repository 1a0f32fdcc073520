"""The store of a central node: rows in a database, params in files, and the rule which of them comes first.

A file is durable before the row that names it; what is not needed any more is deleted after the commit that
says so; what a crash leaves between is swept at the next start. Every write goes through one thread
(`writer.py`) and carries the epoch of this process. The decisions themselves are in `decisions.py`,
`reports.py` and `clients.py`; what pages ask is in `queries.py`; `memory.py` is the twin without a disk.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from fednode.core.ids import make_id
from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics
from fednode.core.narrowed import encoding_of
from fednode.core.params import Params
from fednode.core.records import Assignment, Offer, Outcome, Position, Round, Run, RunConfig, State
from fednode.core.status import RunStatus
from fednode.errors import RoundClosed, StoreLocked
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.store import clients, decisions, deletion, events, reports, retention, rows, rules, schema
from fednode.store.bell import Bell
from fednode.store.decisions import NewModel
from fednode.store.deletion import Deletion
from fednode.store.events import Story
from fednode.store.leadership import require_leader
from fednode.store.lock import StateLock
from fednode.store.narrowing import NarrowedModels
from fednode.store.opening import Opened, database_of, prepare
from fednode.store.params_files import narrowed_name, update_name
from fednode.store.positions import position_of
from fednode.store.recall import Recall
from fednode.store.records import Blob, ClientRecord
from fednode.store.reports import Placed
from fednode.store.writer import Writer, as_store_error, closed

T = TypeVar("T")
P = ParamSpec("P")

MAX_RECALLED = 8_192             # answers of a kind: as many as there may be connections
NUM_READERS = 4                 # threads that read; the writer does not block them


class SqlStore:
    """`ports.Store`, and what the central node asks besides. Made by `SqlStore.open`."""

    def __init__(self, clock: Clock, lock: StateLock, opened: Opened) -> None:
        self._clock, self._lock = clock, lock
        self._files, self._engines = opened.files, opened.engines
        self.database, self.narrowed = opened.database, NarrowedModels(opened.files)
        self._threads = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="store-reader")
        self._bell = Bell(opened.last_event_seq)
        self._writer = Writer(
            opened.engines.writing, guard=partial(require_leader, epoch=opened.epoch), mark=rows.last_event_seq,
            after_commit=self._bell.ring, before_commit=opened.files.settle,
        )
        self.num_unwritten = self._writer.num_waiting           # what waits for the disk
        self._leased: SimpleQueue[tuple[Assignment, float]] = SimpleQueue()     # and not written yet
        self._under_way: set[asyncio.Task[Any]] = set()
        self._by_secret: Recall[ClientRecord] = Recall(MAX_RECALLED)
        self._sizes: Recall[int] = Recall(MAX_RECALLED)         # of models that have their file
        self._unfinished: Recall[list[str]] = Recall(1)
        self._models_turn = asyncio.Lock()
        self._is_closed = False

    @staticmethod
    async def open(state_dir: Path, clock: Clock, database: str = "") -> SqlStore:
        """Lock the folder, bring its tables up to date, sweep its files, and lead.

        `database`: the URL of the rows, where they are not in the folder. Raises StoreLocked, VersionMismatch,
        StoreDamaged, StoreAway, StoreError, UsageError, NotAuthorised.
        """
        rows_in = database_of(state_dir, database)
        lock = StateLock.take(state_dir)
        try:
            return SqlStore(clock, lock, await asyncio.to_thread(prepare, state_dir, rows_in, clock.wall_s()))
        except BaseException:
            lock.release()
            raise

    async def close(self) -> None:
        """Write what is queued, and let the next process in. May be called twice."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._is_closed = True
        await self._writer.close()
        self._threads.shutdown()
        self._engines.dispose()
        self._lock.release()

    async def wait_until_taken(self) -> StoreLocked:
        """Returns when another process leads: this one can write nothing any more, and should end."""
        return await asyncio.shield(self._writer.taken)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a consistent view of the store, in a thread."""
        return await self._in_thread(self._read, query)

    # --- runs --------------------------------------------------------------------------------------

    async def create_run(self, config: RunConfig, metrics: tuple[Metric, ...]) -> Run:
        """A queued run. Raises NotFound where there is no model `config.start_model`."""
        run_id, model_id = self._new_id("run"), self._new_id("mdl")
        work = self._write(decisions.create_run, run_id, config, metrics, model_id, self._clock.wall_s())
        return await self._to_its_end(work, then=self._unfinished.forget)

    async def run(self, run_id: str) -> Run:
        return await self.read(lambda c: rows.get_run(c, run_id))

    async def runs(self) -> list[Run]:
        """All, by number."""
        return await self.read(rows.all_runs)

    async def unfinished_runs(self) -> list[str]:
        """Ids of the runs that have not ended. Every client of a first round asks."""
        return await self._unfinished.of("", lambda: self.read(rows.unfinished_runs)) or []

    async def move_run(self, run_id: str, status: RunStatus, reason: str = "", *, withdraw: bool = False) -> Run:
        """Start, pause, resume or cancel. `withdraw`: take back what is unreported. Raises IllegalMove."""
        wall_s = self._clock.wall_s()
        work = self._write(decisions.move_run, run_id, status, reason, withdraw=withdraw, wall_s=wall_s)
        run, unneeded = await self._to_its_end(work, then=self._unfinished.forget)
        await self._tidy(unneeded)
        return run

    async def end_run(self, run_id: str, status: RunStatus, reason: str = "") -> None:
        work = self._write(decisions.end_run, run_id, status, reason, self._clock.wall_s())
        _, unneeded = await self._to_its_end(work, then=self._unfinished.forget)
        reach("run.ended")
        await self._tidy(unneeded)

    async def set_reason(self, run_id: str, reason: str) -> None:
        """Why it waits; "" clears."""
        await self._write(decisions.set_reason, run_id, reason)

    async def delete_run(self, run_id: str) -> Deletion:
        """Its rows, and its files. Raises NotFound, IllegalMove, Conflict."""
        return await self._to_its_end(self._delete_in_turn(run_id))

    # --- the loop's verbs ----------------------------------------------------------------------------

    async def position(self, run_id: str) -> Position:
        return await self.read(lambda c: position_of(c, self._files, run_id))

    async def open_round(self, round_: Round) -> Round:
        folder = self._in_thread(self._files.make_folder, update_name(round_, ""))
        opened, _ = await asyncio.gather(self._write(decisions.open_round, round_, self._clock.wall_s()), folder)
        reach("round.opened", round_.number)
        return opened

    async def outcomes(self, round_: Round) -> tuple[Outcome, ...]:
        load = self._loader(())
        return tuple((await self.read(lambda c: rows.reported(c, rows.refreshed(c, round_), load))).values())

    async def close_round(self, round_: Round, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        load = self._loader(outcomes)
        closed_with = await self._write(decisions.close_round, round_, outcomes, load, self._clock.wall_s())
        reach("round.closed", round_.number)
        return closed_with

    async def commit_round(self, round_: Round, outcomes: Sequence[Outcome], state: State | None) -> None:
        await self._to_its_end(self._commit_in_turn(round_, outcomes, state))

    async def abandon_round(self, round_: Round, outcomes: Sequence[Outcome], reason: str) -> None:
        load, wall_s = self._loader(outcomes), self._clock.wall_s()
        await self._write(decisions.abandon_round, round_, outcomes, reason, load, wall_s)
        reach("round.abandoned", round_.number)

    # --- reports -------------------------------------------------------------------------------------

    async def report(self, round_: Round, outcome: Outcome, blob: Blob | None = None) -> None:
        """One client's outcome, durable. `blob`: the update's file, whole and fsynced, in `incoming`.

        The same again is fine. Raises AlreadyReported, Withdrawn, RoundClosed.
        """
        await self._to_its_end(self._report(round_, outcome, blob))

    async def report_evaluation(self, round_: Round, client: str, metrics: Metrics) -> None:
        """What a client measured before it trains; the first one counts. In a round of kind `evaluate`: its report."""
        if rules.makes_report(round_):
            await self.report(round_, Outcome(client=client, evaluation=metrics))
        else:
            await self._write(reports.report_evaluation, round_, client, metrics)

    def report_progress(self, round_: Round, client: str, epoch: int, values: Mapping[str, float]) -> None:
        """Scores of a client's own model while it trains. Queued: a crash may lose them."""
        self._writer.queue(lambda c: reports.save_progress(c, round_, client, epoch, values))

    # --- rounds, as the central node sees them ---------------------------------------------------------

    async def round(self, run_id: str, number: int, attempt: int) -> Round:
        return await self.read(lambda c: rows.get_round(c, run_id, number, attempt))

    async def assignments(self, round_: Round) -> list[Assignment]:
        """In name order."""
        return await self.read(lambda c: rows.assignments_of(c, rows.refreshed(c, round_)))

    async def mark_leased(self, assignment: Assignment) -> None:
        """One more delivery. Queued: a lease that is lost is delivered again. The first to be written takes all."""
        self._leased.put((assignment, self._clock.wall_s()))
        self._writer.queue(lambda c: reports.mark_leased(c, self._leased))

    async def budget_left_s(self, round_: Round) -> float:
        """Seconds of up-time that the round still had when they were saved last."""
        return await self.read(lambda c: rows.budget_left_s(c, round_))

    async def save_budget(self, round_: Round, left_s: float) -> None:
        await self._write(rows.save_budget, round_, left_s)

    # --- client nodes ------------------------------------------------------------------------------------

    async def add_client(self, record: ClientRecord) -> ClientRecord:
        """Enroll a client node, or renew its secret. Raises NameTaken, NotAuthorised."""
        return await self._change_client(clients.add_client, record, self._clock.wall_s())

    async def client(self, name: str) -> ClientRecord:
        return await self.read(lambda c: clients.get_client(c, name))

    async def find_client(self, name: str) -> ClientRecord | None:
        return await self.read(lambda c: clients.find(c, schema.client.c.name == name))

    async def client_by_secret(self, secret_sha256: str) -> ClientRecord | None:
        """Without what it offers. Revoked ones too: the caller says why the door stays shut. Every request asks."""
        look = partial(clients.find_by_secret, secret_sha256=secret_sha256)
        return await self._by_secret.of(secret_sha256, lambda: self.read(look))

    async def clients(self) -> list[ClientRecord]:
        """In name order."""
        return await self.read(clients.all_clients)

    async def set_presence(self, name: str, offers: tuple[Offer, ...], versions: Mapping[str, str]) -> ClientRecord:
        return await self._write(clients.set_presence, name, offers, versions, self._clock.wall_s())

    async def touch(self, names: Mapping[str, float]) -> None:
        """Wall seconds at which clients were last heard of, by name."""
        await self._write(clients.touch, names)

    async def rotate_secret(self, name: str, secret_sha256: str) -> None:
        await self._change_client(clients.rotate_secret, name, secret_sha256)

    async def expire_secret(self, name: str, nobodys_sha256: str) -> None:
        await self._change_client(clients.expire_secret, name, nobodys_sha256, self._clock.wall_s())

    async def revoke_client(self, name: str) -> None:
        await self._change_client(clients.revoke_client, name, self._clock.wall_s())

    # --- files and events ------------------------------------------------------------------------------------

    @property
    def incoming_dir(self) -> Path:
        return self._files.incoming

    def incoming_path(self, round_: Round, client: str, digest: str) -> Path:
        """Where an announced update comes in. While its round is open, a restart leaves the file where it is."""
        return self._files.incoming_path(round_, client, digest)

    def model_path(self, sha256: str) -> Path:
        """The file of a committed model; whether there is one is `model_bytes`' to say."""
        return self._files.model_path(sha256)

    async def model_bytes(self, sha256: str) -> int:
        """The size of the model's file. Raises NotFound, Freed."""
        found = await self._sizes.of(sha256, lambda: self.read(lambda c: retention.file_size(c, sha256)))
        assert found is not None, "else it was raised"
        return found

    async def record_event(self, what: str, fields: JsonObject, run_id: str = "") -> None:
        story = Story(what=what, run_id=run_id, fields=fields)
        await self._write(rows.write_event, story, self._clock.wall_s())

    async def wait_for_event(self, after_seq: int, timeout_s: float) -> int:
        """The newest event's seq, as soon as it is greater than `after_seq`, at the latest after `timeout_s`."""
        return await self._bell.wait(after_seq, timeout_s, self._clock)

    # --- inside ------------------------------------------------------------------------------------------------

    async def _commit_in_turn(self, round_: Round, outcomes: Sequence[Outcome], state: State | None) -> None:
        """One at a time: a model that this one frees may be, by its bytes, what another run is about to name."""
        load, wall_s = self._loader(outcomes), self._clock.wall_s()
        async with self._models_turn:
            made = None if state is None else await self._in_thread(self._save_state, round_, state)
            unneeded = await self._write(decisions.commit_round, round_, outcomes, made, load, wall_s)
            reach("round.committed", round_.number)
            await self._free([*unneeded, narrowed_name(round_.base_model)])
            reach("round.tidied", round_.number)

    async def _delete_in_turn(self, run_id: str) -> Deletion:
        async with self._models_turn:
            deleted = await self._write(deletion.delete_run, run_id, self._clock.wall_s())
            reach("run.deleted")
            await self._free(deleted.files)
            return deleted

    async def _free(self, names: Sequence[str]) -> None:
        self._sizes.forget()
        await self._tidy(names)

    async def _report(self, round_: Round, outcome: Outcome, blob: Blob | None) -> None:
        if outcome.update is not None and blob is None:
            blob = await self._in_thread(self._save_update, outcome.update.params)
        is_taken = False
        try:
            is_taken = await self._write(self._take, round_, outcome, blob, self._clock.wall_s())
        except RoundClosed:
            now = await self.round(round_.run_id, round_.number, round_.attempt)
            await self._write(rows.write_event, events.late(now, outcome.client), self._clock.wall_s())
            raise
        finally:
            if blob is not None and not is_taken:
                await self._tidy([blob.path.relative_to(self._files.root).as_posix()])

    def _take(self, c: Connection, round_: Round, outcome: Outcome, blob: Blob | None, wall_s: float) -> bool:
        """The file, then its row: in the writer's turn, so that two bodies never meet in one file."""
        if blob is None:
            return reports.save_report(c, round_, outcome, None, wall_s)
        name = update_name(round_, outcome.client)
        placed = Placed(
            path=name, digest=blob.digest, num_bytes=blob.num_bytes, encoding=blob.encoding, sent_s=blob.sent_s
        )

        def put_in_place() -> None:
            self._files.move(blob.path, name)
            reach("update.renamed", round_.number)

        return reports.save_report(c, round_, outcome, placed, wall_s, put_in_place)

    async def _tidy(self, names: Sequence[str]) -> None:
        """Delete files that no row names. One that cannot be deleted now is swept at the next start."""
        with suppress(OSError):
            await self._in_thread(self._files.delete, names)

    def _save_update(self, params: Params) -> Blob:
        written, path = self._files.save_update(params)
        return Blob(
            path=path, digest=written.digest, num_bytes=written.num_bytes, encoding=encoding_of(params)
        )

    def _save_state(self, round_: Round, state: State) -> NewModel:
        written = self._files.save_model(state.params)
        memory = self._files.save_memory(round_.run_id, round_.number, state.memory)
        return NewModel(
            id=self._new_id("mdl"), sha256=written.sha256, num_bytes=written.num_bytes,
            num_params=state.params.manifest.num_params, memory=memory,
        )

    def _loader(self, given: Sequence[Outcome]) -> rows.Load:
        """Params of updates: those at hand as they are, the others mapped from their files."""
        at_hand = {outcome.client: outcome.update.params for outcome in given if outcome.update is not None}

        def load(client: str, path: str) -> Params:
            return at_hand[client] if client in at_hand else self._files.read(path)

        return load

    def _new_id(self, kind: str) -> str:
        return make_id(kind, int(self._clock.wall_s() * 1000), secrets.token_bytes(10))

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._engines.reading.begin() as connection:
                return query(connection)
        except DBAPIError as error:
            raise as_store_error(error) from error

    async def _change_client(self, work: Callable[..., T], *values: object) -> T:
        """`work`; an old secret must not be recalled after it."""
        return await self._to_its_end(self._write(work, *values), then=self._by_secret.forget)

    async def _to_its_end(self, work: Coroutine[Any, Any, T], then: Callable[[], None] | None = None) -> T:
        """`work`, whatever becomes of who asked: between a file and its row nobody may step in."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())     # heard, though nobody waits
        if then is not None:
            task.add_done_callback(lambda _: then())
        return await asyncio.shield(task)

    async def _write(self, work: Callable[..., T], *values: object, **named: object) -> T:
        return await self._writer.write(lambda c: work(c, *values, **named))

    async def _in_thread(self, work: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        if self._is_closed:
            raise closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *values, **named))
