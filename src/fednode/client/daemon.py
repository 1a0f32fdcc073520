"""The client node's life: check what it has, be known, wait for work, do it, say goodbye. Start at `run_client`.

It dials out only, holds one assignment at a time, and outlives its central node. One assignment's course is in
`execution`, the calls in `link`; the words that a person reads are made by whoever implements `talk.Talk`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib import metadata
from typing import Any, TypeAlias

from pydantic import ValidationError

from fednode.child.child import Child
from fednode.client.execution import Execution, Offered, Workplace
from fednode.client.identity import Secrets, StateLock, load_identity
from fednode.client.ledger import Ledger
from fednode.client.link import Link, Member
from fednode.client.outbox import Outbox
from fednode.client.sharing import PAUSED_BY_OWNER, Sharing
from fednode.client.talk import ClientSettings, Talk
from fednode.core.ids import is_name
from fednode.errors import BadConfig, DataError, FednodeError, UsageError
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.tasks.registry import installed_tasks
from fednode.visit import PACKAGES_THAT_COUNT
from fednode.wire.codec import disk_errors
from fednode.wire.http import Http
from fednode.wire.messages import OfferBody, Presence, Work

POLL_AFTER_S = 1.0                  # work that is done sooner needs no renewal of its lease
GOODBYE_S = 2.0                     # for the central node to hear it
TELL_PAUSE_EVERY_S = 30.0


Beside: TypeAlias = Callable[[Ledger, Sharing], AbstractAsyncContextManager[None]]


def _no_note(url: str) -> str:
    return ""


def _nothing(ledger: Ledger, sharing: Sharing) -> AbstractAsyncContextManager[None]:
    return nullcontext()


async def run_client(
    settings: ClientSettings, talk: Talk, clock: Clock, central_note: Callable[[str], str] = _no_note,
    beside: Beside = _nothing,
) -> None:
    """Be a client node until SIGTERM (returns) or until cancelled, as by Ctrl-C (raises CancelledError).

    `central_note(url)` is the join token that a central node of the same user left on this machine, "" for none;
    it is asked only where `settings.token` is empty. Raises UsageError, DataError, StoreLocked, NotAuthorised,
    NameTaken, VersionMismatch or NotTrusted: what cannot mend itself. A central node that is away is no error.
    `beside` is entered with what this client has sent and with its owner's switch: `page` shows and turns them.
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
        http = Http(settings.central, ca=settings.ca, pin=settings.pin, door=ledger.leaves)
        await stack.enter_async_context(http)
        identity = load_identity(settings.state_dir)
        await stack.enter_async_context(beside(ledger, sharing))
        child = _child(settings, clock)
        stack.push_async_callback(child.stop)
        offers, refused = await find_offers(settings, child)
        reach("tasks.offered")
        talk.offered(tuple(offered.offer for offered in offers.values()), refused)
        member = Member(
            name=settings.name, identity=identity, secrets=Secrets(settings.state_dir),
            join_token=lambda: settings.token or central_note(settings.central), presence=presence_of(offers),
        )
        link = Link(http, member, settings.state_dir / "models", talk, clock)
        place = Workplace(
            client=settings.name, offers=offers, child=child, link=link, talk=talk, ledger=ledger, sharing=sharing,
            outbox=Outbox(settings.state_dir / "outbox"),
        )
        stack.push_async_callback(_say_goodbye, place, clock)
        await _while_shared(place, clock)
        await link.enrol()
        reach("central.joined")
        await work_for_ever(place, clock)


def check_settings(settings: ClientSettings) -> None:
    """Raise UsageError or DataError naming what cannot be; the URL and the CA file are checked by `Http`."""
    if not is_name(settings.name):
        raise UsageError(
            f"{settings.name!r} is no name for a client node",
            fix="use lower case letters, digits, '.', '_' and '-', at most 63, for example --name hospital-a",
        )
    if settings.data is not None and not settings.data.is_dir():
        raise DataError(f"the data folder {settings.data} is not there", fix="name the folder by --data")


async def find_offers(settings: ClientSettings, child: Child) -> tuple[dict[str, Offered], dict[str, str]]:
    """The tasks that run here, by name, and of the others: spec -> why not.

    A task that was asked for by name and cannot run raises its error; DataError where none can.
    """
    offers: dict[str, Offered] = {}
    refused: dict[str, str] = {}
    for spec in settings.tasks or tuple(installed_tasks()):
        try:
            offer = await child.offer(spec)
        except FednodeError as error:
            if settings.tasks:
                raise
            refused[spec] = f"{error.message}; {error.fix}"
            continue
        if not settings.is_summary_shared:
            offer = replace(offer, summary={})      # here already: nothing further on could send it by mistake
        if offer.task in offers:
            raise UsageError(
                f"{offers[offer.task].spec!r} and {spec!r} are both called {offer.task!r}", fix="offer one of the two"
            )
        offers[offer.task] = Offered(spec=spec, offer=offer)
    if not offers:
        reasons = " · ".join(f"{spec}: {reason}" for spec, reason in refused.items())
        raise DataError(
            f"no installed task can run on this site's data. {reasons}",
            fix="name the folder by --data, a task by --task, or use --offline-sample",
        )
    return offers, refused


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


def _child(settings: ClientSettings, clock: Clock) -> Child:
    state_dir = settings.state_dir / "task"
    with disk_errors(state_dir):
        state_dir.mkdir(exist_ok=True)
    return Child(settings.site, clock, state_dir=state_dir)


def presence_of(offers: dict[str, Offered]) -> Presence:
    """What the central node is told at every start: the offers, and the versions that "the same bits" depends on."""
    bodies = [_offer_body(offered) for offered in offers.values()]
    versions: dict[str, str] = {}
    for package in PACKAGES_THAT_COUNT:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return Presence(offers=bodies, versions=versions)


def _offer_body(offered: Offered) -> OfferBody:
    try:
        return OfferBody.model_validate(offered.offer.to_json())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadConfig(
            f"task {offered.spec!r} cannot be offered: {wrong['loc'][0]} = {wrong['input']!r}: {wrong['msg']}",
            fix="correct this in the task's class",
        ) from None


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
