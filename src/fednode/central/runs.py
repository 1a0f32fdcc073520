"""The runs of a central node: accept, queue, play, pause, resume, cancel.

Each run that plays is one asyncio task of `rounds.run_rounds`, started the same way for a new run, a resumed one and
one that a restart interrupted. Runs whose rosters overlap wait for each other, first in, first out; disjoint ones play
side by side. No exception of a run's loop goes unheard: the run fails, or pauses, with its reason.
"""

from __future__ import annotations

import asyncio
import traceback
from functools import partial

import structlog

from fednode.central.fleet import LeasedFleet
from fednode.central.launch_check import LaunchCheck, check_launch, plan_run
from fednode.central.leases import Leases
from fednode.central.presence import Presence
from fednode.central.uploads import Uploads
from fednode.core.records import Run
from fednode.core.status import RunStatus
from fednode.errors import FednodeError, IllegalMove, RunHalted, StoreAway, StoreDamaged, StoreError, StoreLocked
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.rounds import run_rounds
from fednode.store.deletion import Deletion
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.strategies.registry import load_strategy
from fednode.wire.messages import RunRequest

# The wish is kept where people read it, in the run's reason: so it outlives a restart.
PAUSING = "pauses when the open round has ended"
BY_A_PERSON = "by a person"
TRY_AGAIN_S = 10.0          # a store that cannot write now (a full disk) is asked again
RECONNECT_S = 1.0           # so is a database that does not answer
ACTIVE = (RunStatus.RUNNING, RunStatus.QUEUED)

log = structlog.get_logger(__name__)


class Runs:
    """What plays, and what waits for its turn."""

    def __init__(
        self, store: SqlStore, queries: Queries, presence: Presence, leases: Leases, uploads: Uploads, clock: Clock
    ) -> None:
        self._store = store
        self._queries = queries
        self._presence = presence
        self._leases = leases
        self._uploads = uploads
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()         # one decision at a time
        self._is_stopping = False

    async def start(self) -> None:
        """Go on with everything that was running or queued when the process before this one ended."""
        await self._schedule()

    async def stop(self) -> None:
        """No new rounds; open ones stay open in the store, for the next start."""
        self._is_stopping = True
        tasks = [*self._tasks.values(), *self._chores]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, request: RunRequest) -> Run:
        """Accept a run. Raises BadConfig (naming every field that is wrong), NotFound."""
        async with self._lock:
            plan = await plan_run(request, self._presence, self._store, self._queries)
            plan.wrong.raise_any()
            assert plan.config is not None and plan.chosen is not None
            run = await self._store.create_run(plan.config, plan.chosen.offer.metrics)
            reach("run.created")
        await self._see_to_queue()
        return await self._store.run(run.id)

    async def check(self, request: RunRequest) -> LaunchCheck:
        """What `create` would do with this request, and what there is to know before."""
        return await check_launch(request, self._presence, self._store, self._queries)

    async def pause(self, run_id: str, *, is_now: bool) -> Run:
        """Let the open round end, then pause; `is_now`, or where none is open: at once. Raises IllegalMove."""
        async with self._lock:
            run = await self._store.run(run_id)
            is_open = (await self._store.position(run_id)).open_round is not None
            if run.status is RunStatus.RUNNING and is_open and not is_now:
                await self._store.set_reason(run_id, PAUSING)
            else:
                await self._store.move_run(run_id, RunStatus.PAUSED, f"paused {BY_A_PERSON}", withdraw=is_now)
                await self._end_task(run_id)
        await self._see_to_queue()
        return await self._store.run(run_id)

    async def resume(self, run_id: str) -> Run:
        """Queue a paused run again, or take a pause back that has not come yet. Raises IllegalMove."""
        async with self._lock:
            run = await self._store.run(run_id)
            if run.status is RunStatus.RUNNING and run.reason == PAUSING:
                await self._store.set_reason(run_id, "")
            elif run.status in ACTIVE:
                raise IllegalMove(f"run #{run.number} is {run.status}: there is nothing to resume", fix="let it go on")
            else:
                await self._store.move_run(run_id, RunStatus.QUEUED)
        await self._see_to_queue()
        return await self._store.run(run_id)

    async def cancel(self, run_id: str) -> Run:
        """End a run for good; its last committed model stays. Raises IllegalMove."""
        async with self._lock:
            run = await self._store.move_run(run_id, RunStatus.CANCELLED, f"cancelled {BY_A_PERSON}", withdraw=True)
            await self._end_task(run_id)
        await self._see_to_queue()
        return run

    async def delete(self, run_id: str) -> Deletion:
        """Delete a run that has ended, for good. Raises NotFound, IllegalMove, Conflict."""
        async with self._lock:
            return await self._store.delete_run(run_id)

    # --- the queue ----------------------------------------------------------------------------------

    async def _see_to_queue(self) -> None:
        """After a decision, which stands: where the store cannot be written now, its turn in the queue comes later."""
        try:
            await self._schedule()
        except StoreError as refusal:
            log.error("queue.halted", error=refusal.message)
            self._schedule_soon()

    async def _schedule(self) -> None:
        """Start whatever may play now: the running ones after a restart, then the queue in its order."""
        if self._is_stopping:
            return
        async with self._lock:
            active = [run for run in await self._store.runs() if run.status in ACTIVE]
            taken: dict[str, Run] = {}              # by client, the run that it works for or waits for
            for run in (run for run in active if run.status is RunStatus.RUNNING):
                self._begin(run)
                taken |= dict.fromkeys(self._presence.roster(run.config), run)
            for run in (run for run in active if run.status is RunStatus.QUEUED):
                roster = self._presence.roster(run.config)
                await self._start_or_wait(run, next((taken[name] for name in roster if name in taken), None))
                taken |= {name: run for name in roster if name not in taken}

    async def _start_or_wait(self, run: Run, before: Run | None) -> None:
        if before is None:
            started = await self._store.move_run(run.id, RunStatus.RUNNING)
            reach("run.started")
            self._begin(started)
            return
        reason = f"waiting for run #{before.number}, which has some of the same clients"
        if run.reason != reason:
            await self._store.set_reason(run.id, reason)

    def _begin(self, run: Run) -> None:
        if run.id not in self._tasks:
            task = asyncio.create_task(self._play(run), name=f"run #{run.number}")
            self._tasks[run.id] = task
            task.add_done_callback(partial(self._ended, run.id))

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        """Who waited for this run's clients may begin."""
        if self._tasks.get(run_id) is task:
            del self._tasks[run_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run.lost", run=run_id, error=repr(error))    # `_play` answers everything: this is a bug
        if not self._is_stopping:
            self._schedule_soon()

    def _schedule_soon(self) -> None:
        chore = asyncio.create_task(self._schedule_surely())
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _schedule_surely(self) -> None:
        while True:
            try:
                return await self._schedule()
            except StoreError as refusal:
                log.error("queue.halted", error=refusal.message)
                await self._clock.sleep(TRY_AGAIN_S)

    async def _end_task(self, run_id: str) -> None:
        task = self._tasks.pop(run_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._uploads.sweep(run_id)

    # --- playing --------------------------------------------------------------------------------------

    async def _play(self, run: Run) -> None:
        """One run's loop, to its end or its halt. Where the store cannot write it begins anew as soon as it can."""
        while True:
            try:
                await self._play_rounds(await self._store.run(run.id))
            except RunHalted:
                log.info("run.halted", run=run.id)
            except StoreDamaged as error:
                await self._answer(run, error)
            except StoreError as refusal:       # full, away, a disk that fails: what is committed is there
                await self._wait_for_store(run.id, refusal)
                continue
            except Exception as error:      # whatever a strategy does: the run says so, never silently
                await self._answer(run, error)
            await self._uploads.sweep(run.id)
            return

    async def _play_rounds(self, run: Run) -> None:
        strategy = load_strategy(run.config.strategy, run.config.strategy_config)
        gate = partial(self._between_rounds, run.id)
        fleet = LeasedFleet(self._store, self._presence, self._leases, self._clock, gate)
        await run_rounds(run, strategy, fleet, self._store)

    async def _wait_for_store(self, run_id: str, refusal: StoreError) -> None:
        """Say so (if that can be written), and come back when something can be written again.

        A commit whose end nobody was told is over by then, one way or the other: the run reads what became of it.
        """
        log.error("run.waits", run=run_id, error=refusal.message)
        pause_s = RECONNECT_S if isinstance(refusal, StoreAway | StoreLocked) else TRY_AGAIN_S
        await self._can_say(run_id, f"waits: {refusal.message}; {refusal.fix}. It goes on by itself")
        await self._clock.sleep(pause_s)
        while not await self._can_say(run_id, ""):
            await self._clock.sleep(pause_s)

    async def _can_say(self, run_id: str, reason: str) -> bool:
        """Whether the run's reason could be written; a wish to pause stays where it stands."""
        try:
            is_pausing = (await self._store.run(run_id)).reason == PAUSING
            await self._store.set_reason(run_id, PAUSING if is_pausing else reason)
        except StoreError:
            return False
        return True

    async def _between_rounds(self, run_id: str) -> None:
        """What came too late is dropped, and the pause begins that somebody asked for. Raises RunHalted."""
        await self._uploads.sweep(run_id)
        if (await self._store.run(run_id)).reason == PAUSING:
            await self._store.move_run(run_id, RunStatus.PAUSED, f"paused {BY_A_PERSON}")
            raise RunHalted(f"run {run_id} is paused", fix="resume it")

    async def _answer(self, run: Run, error: Exception) -> None:
        """The run fails, with the reason; told as soon as the store can be written."""
        trace = "".join(traceback.format_exception(error))
        log.error("run.crashed", run=run.id, error=repr(error), traceback=trace)
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, FednodeError):
            told = f"{error.message}; {error.fix}"
        while True:
            try:
                await self._store.record_event("run crashed", {"error": told, "traceback": trace}, run.id)
                await self._store.end_run(run.id, RunStatus.FAILED, told)
                return
            except RunHalted:
                return                      # a person was faster
            except StoreError as refusal:
                log.error("run.unsaid", run=run.id, error=refusal.message)
                await self._clock.sleep(TRY_AGAIN_S)
