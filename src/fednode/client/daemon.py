"""The client node's life: check what it has, be known, wait for work, do it, say goodbye. Start at `run_client`.

It dials out only, holds one assignment at a time, and outlives its central node. One assignment's course is in
`execution`, the calls in `link`; the words that a person reads are made by whoever implements `talk.Talk`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias

from fednode.child.child import Child
from fednode.client.approvals import WATCH_EVERY_S, Approvals
from fednode.client.execution import Execution, Workplace
from fednode.client.identity import Secrets, StateLock, load_identity
from fednode.client.ledger import Ledger
from fednode.client.link import Link, Member
from fednode.client.offers import Found, Offered, find_offers, presence_of
from fednode.client.outbox import Outbox
from fednode.client.sharing import PAUSED_BY_OWNER, Sharing
from fednode.client.talk import ClientSettings, Talk
from fednode.core.ids import is_name
from fednode.errors import DataError, UsageError
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.tasks.state_dirs import StateDirs
from fednode.wire.http import Http
from fednode.wire.messages import Work

POLL_AFTER_S = 1.0                  # work that is done sooner needs no renewal of its lease
GOODBYE_S = 2.0                     # for the central node to hear it
TELL_PAUSE_EVERY_S = 30.0


Beside: TypeAlias = Callable[[Ledger, Sharing, Approvals | None], AbstractAsyncContextManager[None]]


def _no_note(url: str) -> str:
    return ""


def _nothing(ledger: Ledger, sharing: Sharing, approvals: Approvals | None) -> AbstractAsyncContextManager[None]:
    return nullcontext()


async def run_client(
    settings: ClientSettings, talk: Talk, clock: Clock, central_note: Callable[[str], str] = _no_note,
    beside: Beside = _nothing,
) -> None:
    """Be a client node until SIGTERM (returns) or until cancelled, as by Ctrl-C (raises CancelledError).

    `central_note(url)` is the join token that a central node of the same user left on this machine, "" for none;
    it is asked only where `settings.token` is empty. Raises UsageError, DataError, StoreLocked, NotAuthorised,
    NameTaken, VersionMismatch or NotTrusted: what cannot mend itself. A central node that is away is no error.
    `beside` is entered with what this client has sent, with its owner's switch and, where the policy asks for them,
    their approvals: `page` shows and turns them.
    """
    life = asyncio.create_task(_live(settings, talk, clock, central_note, beside))
    with _ended_by_sigterm(life) as is_asked:
        try:
            await life
        except asyncio.CancelledError:
            if not is_asked():
                raise


async def _live(
    settings: ClientSettings, talk: Talk, clock: Clock, central_note: Callable[[str], str], beside: Beside
) -> None:
    """Everything that can be wrong here is found before the central node hears of this client."""
    check_settings(settings)
    async with AsyncExitStack() as stack:
        lock = StateLock(settings.state_dir)
        stack.callback(lock.release)
        ledger, sharing = Ledger(settings.state_dir, clock), Sharing(settings.state_dir, clock)
        approvals = Approvals(settings.state_dir, clock) if settings.policy.is_by_hand else None
        http = Http(settings.central, ca=settings.ca, pin=settings.pin, door=ledger.leaves)
        await stack.enter_async_context(http)
        identity = load_identity(settings.state_dir)
        await stack.enter_async_context(beside(ledger, sharing, approvals))
        child = Child(settings.site, clock)
        stack.push_async_callback(child.stop)
        found = await find_offers(settings, child, approvals)
        reach("tasks.offered")
        offers = dict(found.offers)
        _tell(found, talk, approvals)
        member = Member(
            name=settings.name, identity=identity, secrets=Secrets(settings.state_dir),
            join_token=lambda: settings.token or central_note(settings.central),
            presence=lambda: presence_of(offers, found.device),
        )
        link = Link(http, member, settings.state_dir / "models", talk, clock)
        place = Workplace(
            client=settings.name, offers=offers, child=child, link=link, talk=talk, ledger=ledger, sharing=sharing,
            outbox=Outbox(settings.state_dir / "outbox", StateDirs(settings.state_dir / "state")),
            approvals=approvals, clock=clock,
        )
        stack.push_async_callback(_say_goodbye, place, clock)
        await _while_shared(place, clock)
        await link.enrol()
        reach("central.joined")
        work = asyncio.create_task(work_for_ever(place, clock))
        stack.push_async_callback(_ended, work)
        if approvals is not None:
            await _beside(work, _heed_approvals(found, settings, offers, place, approvals))
        await work


def check_settings(settings: ClientSettings) -> None:
    """Raise UsageError or DataError naming what cannot be; the URL and the CA file are checked by `Http`."""
    if not is_name(settings.name):
        raise UsageError(
            f"{settings.name!r} is no name for a client node",
            fix="use lower case letters, digits, '.', '_' and '-', at most 63, for example --name hospital-a",
        )
    if settings.data is not None and not settings.data.is_dir():
        raise DataError(f"the data folder {settings.data} is not there", fix="name the folder by --data")


def _tell(found: Found, talk: Talk, approvals: Approvals | None) -> None:
    """What came of the tasks, to the person here; and what waits for them, written down."""
    talk.offered(tuple(offered.offer for offered in found.offers.values()), found.refused)
    if approvals is not None:
        approvals.ask(found.waiting)
        talk.asks(tuple(found.codes))


async def _heed_approvals(
    found: Found, settings: ClientSettings, offers: dict[str, Offered], place: Workplace, approvals: Approvals
) -> None:
    """Offer what is approved from now on, and what is refused no more. Raises what ends a client node."""
    while True:
        await place.clock.sleep(WATCH_EVERY_S)
        if all(approvals.verdict(code) is code.verdict for code in found.codes):
            continue
        found = await find_offers(settings, place.child, approvals, is_patient=True)
        offers.clear()
        offers.update(found.offers)
        _tell(found, place.talk, approvals)
        await place.sharing.until_resumed()
        await place.link.be_present()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def work_for_ever(place: Workplace, clock: Clock) -> None:
    """First what lies finished in the outbox, then whatever comes. Raises what ends a client node."""
    for finished in await asyncio.to_thread(place.outbox.finished):
        execution = Execution(finished.assignment, place)
        await _hold(execution, execution.resend(finished), place, clock)
    while True:
        await _while_shared(place, clock)
        news = await _next(place)
        if news.assignment is not None:
            execution = Execution(news.assignment.id, place)
            await _hold(execution, execution.run(news.assignment), place, clock)


async def _while_shared(place: Workplace, clock: Clock) -> None:
    """At once, or when the owner shares again. Until then the central node is told why this client is not there."""
    if not place.sharing.is_paused:
        return
    place.talk.paused()
    telling = asyncio.create_task(_tell_pause(place.link, clock))
    try:
        await place.sharing.until_resumed()
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    place.talk.resumed()


async def _tell_pause(link: Link, clock: Clock) -> None:
    """Now and again: a central node that is away, or starts anew, should know it, too."""
    while True:
        await link.leave(PAUSED_BY_OWNER)
        await clock.sleep(TELL_PAUSE_EVERY_S)


async def _next(place: Workplace) -> Work:
    """The next piece of news; none where the owner pauses before it comes."""
    poll, pause = asyncio.create_task(place.link.work()), asyncio.create_task(place.sharing.until_paused())
    try:
        await asyncio.wait({poll, pause}, return_when=asyncio.FIRST_COMPLETED)
        return poll.result() if poll.done() else Work()
    finally:
        poll.cancel()
        pause.cancel()
        await asyncio.gather(poll, pause, return_exceptions=True)


async def _hold(execution: Execution, work: Coroutine[Any, Any, None], place: Workplace, clock: Clock) -> None:
    """Do `work`, and keep the central node's line meanwhile: it renews the lease and brings a withdrawal."""
    task, heeding = asyncio.create_task(work), asyncio.create_task(_heed_owner(execution, place))
    try:
        await _beside(task, clock.sleep(POLL_AFTER_S))
        while not task.done() and not execution.is_over:
            await _beside(task, _listen(execution, place.link))
        await task
    finally:
        task.cancel()
        heeding.cancel()
        await asyncio.gather(task, heeding, return_exceptions=True)


async def _heed_owner(execution: Execution, place: Workplace) -> None:
    """A pause in the middle of the work: the central node gives no more after it. Where it is to stop, it stops."""
    await place.sharing.until_paused()
    await place.link.leave(PAUSED_BY_OWNER, holding=execution.assignment)
    await place.sharing.until_stopped()
    execution.stop(PAUSED_BY_OWNER)


async def _listen(execution: Execution, link: Link) -> None:
    news = await link.work(execution.assignment)
    if news.withdrawn:
        execution.withdraw()


async def _beside(task: asyncio.Task[None], other: Coroutine[Any, Any, None]) -> None:
    """`other`, broken off where `task` ends before it. Raises what `other` raised."""
    companion = asyncio.create_task(other)
    try:
        await asyncio.wait({task, companion}, return_when=asyncio.FIRST_COMPLETED)
        if companion.done():
            companion.result()
    finally:
        companion.cancel()
        await asyncio.gather(companion, return_exceptions=True)


async def _say_goodbye(place: Workplace, clock: Clock) -> None:
    """The central node should hear that this client is gone, but it may not hold up the end."""
    limit = asyncio.create_task(clock.sleep(GOODBYE_S))
    farewell = asyncio.create_task(place.link.leave(PAUSED_BY_OWNER if place.sharing.is_paused else ""))
    await asyncio.wait({farewell, limit}, return_when=asyncio.FIRST_COMPLETED)
    limit.cancel()
    farewell.cancel()


@contextmanager
def _ended_by_sigterm(life: asyncio.Task[None]) -> Iterator[Callable[[], bool]]:
    """While this holds, SIGTERM cancels `life`; the value tells whether it did. Signals reach the main thread only."""
    asked: list[bool] = []

    def end() -> None:
        asked.append(True)
        life.cancel()

    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield lambda: bool(asked)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
