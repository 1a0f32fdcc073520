"""How the fleet waits: for clients, between attempts, for reports, until the deadline; all on a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from central_scene import config, offer, params

from fednode.central.fleet import LeasedFleet
from fednode.central.leases import Leases, assignment_id
from fednode.central.presence import Member, Presence
from fednode.clock import HandClock
from fednode.core.records import Outcome, Round, Run, Update
from fednode.core.status import FailureCode, RoundKind, RunStatus
from fednode.errors import RunHalted
from fednode.store.memory import MemoryStore

T = TypeVar("T")


class Scene:
    """A store, a room of clients and the fleet of one run, as one process of a central node has them."""

    def __init__(self, clock: HandClock, store: MemoryStore, *names: str) -> None:
        self.clock, self.store = clock, store
        self.presence = Presence(clock, gone_after_s=60)
        self.leases = Leases(clock, lease_s=60)
        self.fleet = LeasedFleet(store, self.presence, self.leases, clock)
        for name in names:
            self.presence.enrol(Member(name=name, offers=(offer(),), last_seen_s=clock.wall_s()))
            self.presence.heard(name)

    def restarted(self) -> Scene:
        """Another process over the same store: it has heard of nobody yet."""
        scene = Scene(self.clock, self.store)
        for member in self.presence.members():
            scene.presence.enrol(member)
        return scene

    async def run(self, **changes: Any) -> Run:
        run = await self.store.create_run(config(**changes), offer().metrics)
        return await self.store.move_run(run.id, RunStatus.RUNNING)

    async def open_round(self, run: Run, *cohort: str, attempt: int = 1) -> Round:
        return await self.store.open_round(Round(
            run_id=run.id, number=1, attempt=attempt, kind=RoundKind.TRAIN, cohort=cohort, config={},
            base_model="0" * 64, budget_s=run.config.deadline_s,
        ))

    async def report(self, round_: Round, client: str) -> None:
        update = Update(client=client, params=params(1, 2, 3, 4), num_examples=1)
        await self.store.report(round_, Outcome(client=client, update=update))
        self.leases.settle(round_, client)

    async def collect(self, run: Run, round_: Round) -> dict[str, Outcome]:
        return {outcome.client: outcome async for outcome in self.fleet.dispatch(run, round_)}

    @asynccontextmanager
    async def alive(self, *names: str) -> AsyncIterator[None]:
        """These clients are heard of every 20 s."""
        async def polls() -> None:
            while True:
                for name in names:
                    self.presence.heard(name)
                await self.clock.sleep(20)

        task = asyncio.create_task(polls())
        try:
            yield
        finally:
            task.cancel()


class StoppableClock(HandClock):
    """A clock that goes on while its process does not: SIGSTOP, or a closed lid."""

    def stop_process_for(self, seconds: float) -> None:
        self._now_s += seconds
        # Whoever should have woken meanwhile wakes late: when the process goes on.
        self._sleepers = [(max(when_s, self._now_s), ticket, waker) for when_s, ticket, waker in self._sleepers]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def scene(clock: HandClock) -> Scene:
    return Scene(clock, MemoryStore(clock), "a", "b", "c")


async def after(clock: HandClock, seconds: float, waiting: Awaitable[T]) -> T | None:
    """What `waiting` gives within `seconds`; None where it does not come."""
    task = asyncio.ensure_future(waiting)
    await clock.settle()
    await clock.advance(seconds)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def begun(clock: HandClock, waiting: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """`waiting` as a task that has come to its first wait."""
    task = asyncio.create_task(waiting)
    await clock.settle()
    return task


# --- reports and deadlines ------------------------------------------------------------------------


async def test_a_round_ends_as_soon_as_everybody_has_reported(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    task = await begun(clock, scene.collect(run, round_))
    await scene.report(round_, "a")
    await clock.settle()
    assert not task.done()
    await scene.report(round_, "b")
    await clock.settle()
    outcomes = task.result()
    assert [outcomes[name].failure for name in ("a", "b")] == [None, None]


async def test_what_was_reported_before_a_restart_comes_first_and_is_not_posted_again(scene: Scene) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    await scene.report(round_, "b")
    later = scene.restarted()
    outcomes = aiter(later.fleet.dispatch(run, round_))
    assert (await anext(outcomes)).client == "b"
    waiting = asyncio.ensure_future(anext(outcomes))
    await scene.clock.settle()
    assert later.leases.lease("b") is None
    assert later.leases.lease("a") is not None
    await later.report(round_, "a")
    assert (await waiting).client == "a"


async def test_who_is_there_but_late_fails_at_the_deadline_and_not_before(scene: Scene, clock: HandClock) -> None:
    run = await scene.run(deadline_s=600.0)
    round_ = await scene.open_round(run, "a", "b")
    async with scene.alive("a", "b"):
        task = await begun(clock, scene.collect(run, round_))
        await scene.report(round_, "a")
        await clock.advance(599)
        assert not task.done()
        await clock.advance(1)
    outcomes = task.result()
    assert outcomes["a"].update is not None
    late = outcomes["b"].failure
    assert late is not None
    assert (late.code, late.reason) == (FailureCode.DEADLINE, "not done within the round's 600 s")


async def test_a_restart_gives_a_round_the_seconds_that_it_had_left(scene: Scene, clock: HandClock) -> None:
    run = await scene.run(deadline_s=600.0)
    round_ = await scene.open_round(run, "a")
    async with scene.alive("a"):
        assert await after(clock, 402, scene.collect(run, round_)) is None
    left_s = await scene.store.budget_left_s(round_)
    assert left_s == pytest.approx(198, abs=1)          # 600 - 402, saved when it was stopped
    await clock.advance(10_000)                         # nobody runs: this time is not the round's
    later = scene.restarted()
    async with later.alive("a"):
        task = await begun(clock, later.collect(run, round_))
        await clock.settle()
        await clock.advance(left_s - 2)
        assert not task.done()
        await clock.advance(4)
        assert task.done()


async def test_the_seconds_left_are_saved_every_five_for_a_process_that_is_killed(
    scene: Scene, clock: HandClock
) -> None:
    run = await scene.run(deadline_s=600.0)
    round_ = await scene.open_round(run, "a")
    async with scene.alive("a"):
        task = await begun(clock, scene.collect(run, round_))
        await clock.settle()
        for spent_s in (7, 14, 21):
            await clock.advance(7)
            saved_s = await scene.store.budget_left_s(round_)
            assert 0 <= saved_s - (600 - spent_s) < 6, "what was saved is never older than 5 s and a tick"
        task.cancel()


async def test_the_time_of_a_stopped_process_spends_no_deadline_and_makes_nobody_gone() -> None:
    clock = StoppableClock()
    scene = Scene(clock, MemoryStore(clock), "a")
    run = await scene.run(deadline_s=600.0)
    round_ = await scene.open_round(run, "a")
    task = await begun(clock, scene.collect(run, round_))
    await clock.advance(10)
    clock.stop_process_for(3_600)
    await clock.advance(10)
    assert not task.done()
    assert scene.presence.is_there("a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await scene.store.budget_left_s(round_) == pytest.approx(580, abs=2)     # 600 - 10 - 10


# --- who is gone ------------------------------------------------------------------------------------


async def test_a_silent_client_is_gone_after_sixty_seconds_and_the_round_does_not_wait(
    scene: Scene, clock: HandClock
) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    async with scene.alive("a"):
        task = await begun(clock, scene.collect(run, round_))
        await scene.report(round_, "a")
        await clock.advance(59)
        assert not task.done()
        await clock.advance(2)
    failure = task.result()["b"].failure
    assert failure is not None
    assert (failure.code, failure.reason) == (FailureCode.GONE, "unheard of for 60 s")


async def test_a_client_that_comes_back_before_the_round_is_over_still_counts(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    async with scene.alive("a"):
        task = await begun(clock, scene.collect(run, round_))
        await clock.advance(100)                # b is gone; a still trains
        scene.presence.heard("b")
        await scene.report(round_, "b")
        await scene.report(round_, "a")
        await clock.settle()
    assert task.result()["b"].update is not None


async def test_who_says_goodbye_is_gone_at_once(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a")
    scene.presence.leave("a")
    outcomes = await after(clock, 1, scene.collect(run, round_))
    assert outcomes is not None
    failure = outcomes["a"].failure
    assert failure is not None
    assert (failure.code, failure.reason) == (FailureCode.GONE, "was stopped")


async def test_nobody_is_gone_in_the_first_sixty_seconds_after_a_start(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a")
    await clock.advance(1_000)
    later = scene.restarted()
    assert not later.presence.is_gone("a")
    task = await begun(clock, later.collect(run, round_))
    await clock.advance(59)
    assert not task.done()
    await clock.advance(2)
    assert task.result()["a"].failure is not None


# --- gathering --------------------------------------------------------------------------------------


async def test_whoever_of_the_roster_is_there_is_gathered_in_name_order(scene: Scene, clock: HandClock) -> None:
    scene.presence.enrol(Member(name="other", offers=(offer("another", "another@1"),)))
    scene.presence.heard("other")
    run = await scene.run()
    assert await after(clock, 0, scene.fleet.gather(run, 2, 1)) == ("a", "b", "c")


async def test_a_fixed_roster_asks_nobody_else(scene: Scene, clock: HandClock) -> None:
    run = await scene.run(clients=("a", "c"))
    assert await after(clock, 0, scene.fleet.gather(run, 2, 1)) == ("a", "c")


async def test_a_client_that_joins_later_is_gathered_for_the_next_round(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    await scene.fleet.gather(run, 2, 1)
    scene.presence.enrol(Member(name="aa", offers=(offer(),)))
    scene.presence.heard("aa")
    assert await after(clock, 0, scene.fleet.gather(run, 2, 1)) == ("a", "aa", "b", "c")


async def test_a_run_that_waits_says_for_whom_and_goes_on_by_itself(scene: Scene, clock: HandClock) -> None:
    run = await scene.run(min_updates=3)
    seen_s = clock.wall_s()
    scene.presence.leave("b")
    task = await begun(clock, scene.fleet.gather(run, 3, 1))
    async with scene.alive("a", "c"):
        await clock.advance(900)                # there is no limit to waiting
        since = datetime.fromtimestamp(seen_s, tz=UTC).astimezone().strftime("%H:%M")
        waits = (await scene.store.run(run.id)).reason
        assert waits == f"waiting for 3 of 3 clients: b gone since {since}"
        scene.presence.heard("b")
        await clock.advance(1)
    assert task.result() == ("a", "b", "c")
    assert (await scene.store.run(run.id)).reason == ""


async def test_after_a_restart_a_round_waits_for_those_who_may_be_on_their_way(scene: Scene, clock: HandClock) -> None:
    """Else a restart would change the cohort, and with it the result."""
    run = await scene.run()
    later = scene.restarted()
    later.presence.heard("a")
    later.presence.heard("b")
    task = await begun(clock, later.fleet.gather(run, 2, 1))
    await clock.advance(10)
    assert not task.done()
    assert (await scene.store.run(run.id)).reason == "waiting up to 60 s for c after a restart"
    later.presence.heard("c")
    await clock.advance(1)
    assert task.result() == ("a", "b", "c")


async def test_after_sixty_seconds_a_restarted_run_goes_on_without_who_did_not_come(
    scene: Scene, clock: HandClock
) -> None:
    run = await scene.run()
    later = scene.restarted()
    async with later.alive("a", "b"):
        task = await begun(clock, later.fleet.gather(run, 2, 1))
        await clock.advance(62)
    assert task.result() == ("a", "b")


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 0), (2, 60), (3, 300), (4, 0), (5, 60), (6, 300)])
async def test_attempts_lie_one_and_five_minutes_apart_in_each_group_of_three(
    scene: Scene, clock: HandClock, attempt: int, delay_s: int
) -> None:
    run = await scene.run()
    async with scene.alive("a", "b", "c"):
        task = await begun(clock, scene.fleet.gather(run, 2, attempt))
        await clock.settle()
        if delay_s:
            await clock.advance(delay_s - 1)
            assert not task.done()
            place = (attempt - 1) % 3 + 1
            assert (await scene.store.run(run.id)).reason.startswith(f"attempt {place} of 3 begins at ")
            await clock.advance(1)
        assert task.done()
    assert (await scene.store.run(run.id)).reason == ""


async def test_a_halt_that_is_wanted_comes_before_the_next_round(scene: Scene) -> None:
    async def halt() -> None:
        raise RunHalted("paused", fix="resume")

    fleet = LeasedFleet(scene.store, scene.presence, scene.leases, scene.clock, halt)
    with pytest.raises(RunHalted):
        await fleet.gather(await scene.run(), 2, 1)


# --- leases -----------------------------------------------------------------------------------------


@pytest.fixture
async def posted(scene: Scene) -> AsyncIterator[Round]:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    scene.leases.post(run, round_, ())
    yield round_


async def test_who_waits_for_work_is_woken_by_its_posting_and_by_its_end(scene: Scene, clock: HandClock) -> None:
    run = await scene.run()
    round_ = await scene.open_round(run, "a", "b")
    rung, other = scene.leases.client_bell("a").listen(), scene.leases.client_bell("c").listen()
    scene.leases.post(run, round_, ())
    assert (rung.is_set(), other.is_set()) == (True, False)
    rung = scene.leases.client_bell("a").listen()
    scene.leases.take_back(round_)
    assert rung.is_set()


async def test_a_poll_that_holds_nothing_gets_its_leased_work_again(scene: Scene, posted: Round) -> None:
    first, again = scene.leases.lease("a"), scene.leases.lease("a")
    assert first is not None
    assert again is not None
    assert (first.id, first.num_leases) == (assignment_id(posted), 1)
    assert (again.id, again.num_leases) == (assignment_id(posted), 2)


async def test_a_held_assignment_keeps_its_client_busy_for_a_lease_and_no_longer(
    scene: Scene, clock: HandClock, posted: Round
) -> None:
    scene.leases.lease("a")
    await clock.advance(50)
    assert scene.leases.renew("a", assignment_id(posted))
    await clock.advance(59)
    assert scene.leases.is_busy("a")
    await clock.advance(2)
    assert not scene.leases.is_busy("a")


async def test_what_is_reported_or_taken_back_cannot_be_held_any_more(scene: Scene, posted: Round) -> None:
    scene.leases.settle(posted, "a")
    assert not scene.leases.renew("a", assignment_id(posted))
    assert scene.leases.renew("b", assignment_id(posted))
    scene.leases.take_back(posted)
    assert not scene.leases.renew("b", assignment_id(posted))
    assert scene.leases.lease("b") is None


async def test_a_client_of_two_runs_works_on_one_after_the_other(scene: Scene, posted: Round) -> None:
    other = await scene.run()
    second = replace(posted, run_id=other.id)
    scene.leases.post(other, second, ())
    first = scene.leases.lease("a")
    assert first is not None
    assert first.id == assignment_id(posted)
    scene.leases.settle(posted, "a")
    then = scene.leases.lease("a")
    assert then is not None
    assert then.id == assignment_id(second)
