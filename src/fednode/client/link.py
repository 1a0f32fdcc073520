"""The calls of a client node to its central node, repeated for as long as it takes.

A central node that is down, restarting or slow is tried again for ever (full jitter, 0.1 s doubling to 10 s). One
that has lost its state is registered with again. What the answers mean for the work is decided in `execution`
and `daemon`; the bodies are `wire.messages`, the HTTP is `wire.http`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from fednode.client.identity import Identity, Secrets
from fednode.client.model_cache import ModelCache
from fednode.client.outbox import Finished, check_assignment_id
from fednode.client.registration import join, renew
from fednode.client.talk import Talk
from fednode.core.encoding import F32
from fednode.core.json import JsonObject
from fednode.core.records import Failure
from fednode.core.status import FailureCode
from fednode.errors import (
    AlreadyReported,
    BadConfig,
    BadParamsFile,
    CannotConnect,
    Conflict,
    FednodeError,
    NameTaken,
    NotAuthorised,
    NotFound,
    NotTrusted,
    StoreError,
    TimedOut,
    UsageError,
    VersionMismatch,
)
from fednode.ports import Clock
from fednode.wire.http import Http, with_retries
from fednode.wire.messages import (
    EpochBody,
    FailureBody,
    Farewell,
    Presence,
    Progress,
    Registered,
    UploadTicket,
    Work,
)

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)

POLL_S = 25                         # how long the central node may hold an answer back
POLL_GRACE_S = 15.0                 # what it has on top before it counts as away
SILENCES_TOLD = 2                   # one lost connection is no news
QUICK_S, PAUSE_S = 0.05, 0.05       # an empty answer sooner than this is followed by this pause
MAX_REASON_CHARS, MAX_TRACEBACK_CHARS = 2_000, 20_000       # of `messages.FailureBody`
FATAL = (NotAuthorised, NameTaken, VersionMismatch)         # nothing that a client node does later can mend these


@dataclass(frozen=True, kw_only=True)
class Member:
    """Who a client node is to its central node, and what opens the door there."""

    name: str
    identity: Identity
    secrets: Secrets
    join_token: Callable[[], str]   # asked at each registration: a central node that restarts may leave a new one
    presence: Callable[[], Presence]        # asked whenever it is told: what is offered may change


class Link:
    """One client node's line to one central node."""

    def __init__(self, http: Http, member: Member, models_dir: Path, talk: Talk, clock: Clock) -> None:
        self._http = http               # its token is the client's secret
        self._central = http.base_url
        self._member = member
        self._models = ModelCache(models_dir)
        self._talk = talk
        self._clock = clock
        http.token = member.secrets.find(self._central, member.name)
        self._is_untried = False        # the secret is new and has opened no door yet
        self._door = asyncio.Lock()
        self._silence = Silence(talk)

    async def enrol(self) -> None:
        """Be known at the central node, with this start's offers; wait for it where it is away.

        Raises NotAuthorised, NameTaken or VersionMismatch where it will not have this client node, NotTrusted where
        who answers cannot prove who it is: later on that counts as away.
        """
        await self._patiently(partial(self._http.request, "GET", "/healthz"), own_faults=NotTrusted)
        self._talk.registering(self._central)
        if not self._http.token:
            await self._register()
        await self.be_present()
        self._talk.registered()

    async def be_present(self) -> None:
        """Tell what is offered now. An older central node hears it without the fields that it would refuse."""
        presence = self._member.presence()
        tell = partial(self._http.request, "PUT", "/api/v1/clients/me")
        try:
            await self._as_member(partial(tell, body=presence))
        except UsageError:
            if (plain := presence.of_the_first_release()) == presence:
                raise
            await self._as_member(partial(tell, body=plain))

    async def work(self, holding: str = "") -> Work:
        """The next piece of news; empty after POLL_S without any. `holding` renews the lease of that assignment."""
        began_s = self._clock.now_s()
        # The first answer after a silence should come at once: it is what tells that the central node is back.
        waits_s = chain((POLL_S,), repeat(0))
        work = _read(Work, await self._as_member(partial(self._poll, holding, waits_s)))
        if work.assignment is not None:
            _require_id(work.assignment.id)
        elif not work.withdrawn and self._clock.now_s() - began_s < QUICK_S:
            await self._clock.sleep(PAUSE_S)    # a central node that is closing down answers all polls at once
        return work

    async def report_evaluation(self, assignment: str, metrics: JsonObject) -> None:
        """Durable at the central node when it returns. The first one counts."""
        with suppress(AlreadyReported):
            await self._post(assignment, "metrics", Progress(evaluation=dict(metrics)))

    async def report_epochs(self, assignment: str, epochs: Sequence[EpochBody]) -> None:
        await self._post(assignment, "metrics", Progress(local=list(epochs)))

    async def report_failure(self, assignment: str, failure: Failure) -> None:
        """Where the central node has decided otherwise meanwhile, that stands."""
        body = FailureBody(
            code=_sendable(failure.code), reason=_utf8(failure.reason)[:MAX_REASON_CHARS],
            traceback=_utf8(failure.traceback)[-MAX_TRACEBACK_CHARS:],
        )
        with suppress(Conflict, NotFound):
            await self._post(assignment, "failure", body)

    async def send(self, finished: Finished) -> None:
        """Announce, then upload what the central node does not have yet. On its disk when this returns.

        Raises AlreadyReported, RoundClosed, Withdrawn or NotFound where it is not wanted, ParamsError where it
        cannot be taken.
        """
        try:
            await self._as_member(partial(self._send, finished))
        except BadParamsFile as damage:     # on the way, where the central node wants it once more
            try:
                await self._as_member(partial(self._send, finished))
            except Conflict:
                raise damage from None

    async def model(self, sha256: str, num_bytes: int, *, encoding: str = F32, file_sha256: str = "") -> Path:
        """The file of these params, from the cache or the central node. `file_sha256`: where another is to be sent."""
        name, query = (file_sha256, f"?encoding={encoding}") if file_sha256 else (sha256, "")
        if not await asyncio.to_thread(self._models.has, name):
            path = self._models.prepare(name)
            fetch = partial(self._http.download, f"/api/v1/models/{sha256}/params{query}", path, expect_sha256=name)
            await self._as_member(partial(fetch, num_bytes=num_bytes or None), own_faults=StoreError)
            self._models.add(name)
        return self._models.path(name)

    async def leave(self, reason: str = "", *, holding: str = "") -> None:
        """Say goodbye, once: a central node that does not hear it finds out by itself. `holding`: ends that first."""
        if self._http.token:
            body = Farewell(reason=reason, holding=holding) if reason or holding else None
            with suppress(FednodeError):
                await self._http.request("POST", "/api/v1/clients/me/leave", body=body)


    async def _post(self, assignment: str, what: str, body: BaseModel) -> None:
        path = f"/api/v1/assignments/{assignment}/{what}"
        await self._as_member(partial(self._http.request, "POST", path, body=body))

    async def _poll(self, holding: str, waits_s: Iterator[int]) -> Any:
        """Whatever else than work is answered to a poll, it is no reason to end: a proxy in between may be astray."""
        wait_s = next(waits_s)
        params = {"wait": str(wait_s)} | ({"holding": holding} if holding else {})
        timeout_s = wait_s + POLL_GRACE_S
        try:
            return await self._http.request("GET", "/api/v1/clients/me/work", params=params, timeout_s=timeout_s)
        except (*FATAL, NotTrusted):        # the latter counts as away, and is told apart
            raise
        except FednodeError as error:
            raise _retried(error) from error

    async def _send(self, finished: Finished) -> None:
        """Each try asks anew how much is there, so that it never goes on from where another process stood."""
        path = f"/api/v1/assignments/{finished.assignment}/update"
        ticket = _read(UploadTicket, await self._http.request("POST", path, body=finished.announcement))
        if ticket.is_complete:
            return
        try:
            await self._http.upload(_require_path(ticket.url), finished.file, offset=ticket.offset)
        except Conflict as error:
            if type(error) is not Conflict:     # a plain one is no decision: the two sides are out of step
                raise
            raise CannotConnect(error.message, fix=error.fix) from error

    async def _as_member(
        self, call: Callable[[], Awaitable[T]], *, own_faults: type[FednodeError] | tuple[()] = ()
    ) -> T:
        """`call` with the secret. One that opens no door any more is replaced: the central node's state was lost."""
        while True:
            secret = self._http.token
            try:
                answer = await self._patiently(call, own_faults=own_faults)
            except NotAuthorised as error:
                await self._register_again(secret, error)
            else:
                self._is_untried = False
                return answer

    async def _register_again(self, stale: str, refusal: NotAuthorised) -> None:
        async with self._door:
            if self._http.token != stale:       # another call did it meanwhile
                return
            if self._is_untried:
                raise refusal
            self._talk.registering(self._central)
            await self._renew(refusal)
        await self.be_present()
        self._talk.registered()

    async def _renew(self, refusal: NotAuthorised) -> None:
        """Where this client is known, its key opens the door; where the central node's state was lost, a join token."""
        try:
            await self._register_by_key(refusal)
        except NotAuthorised:
            if not self._member.join_token():
                raise
            await self._register()

    async def _register(self) -> None:
        """By a join token; where that is void, perhaps this key is known there, under another address."""
        member = self._member
        try:
            answer = await self._patiently(lambda: join(self._http, member.name, member.identity, member.join_token()))
        except NotAuthorised as refusal:
            await self._register_by_key(refusal)
        else:
            self._keep(answer)

    async def _register_by_key(self, refusal: NotAuthorised) -> None:
        """Raises `refusal` where this key has no name there."""
        try:
            self._keep(await self._patiently(lambda: renew(self._http, self._member.name, self._member.identity)))
        except (NotAuthorised, NotFound):       # NotFound: of an older central node
            raise refusal from None

    def _keep(self, answer: Any) -> None:
        secret = _read(Registered, answer).secret
        self._member.secrets.keep(self._central, self._member.name, secret)
        self._http.token = secret
        self._is_untried = True

    async def _patiently(
        self, call: Callable[[], Awaitable[T]], *, own_faults: type[FednodeError] | tuple[()] = ()
    ) -> T:
        """`call`, again and again while the central node is away. `own_faults` are of this side, and raised.

        What cannot last counts as away: nobody there, a fault over there, too busy.
        """
        me = object()

        async def once() -> T:
            try:
                answer = await call()
            except FednodeError as error:
                if isinstance(error, own_faults) or not _is_away(error):
                    self._silence.ended(me)
                    raise
                self._silence.goes_on(me, error)
                raise _retried(error) from error
            self._silence.ended(me)
            return answer

        try:
            return await with_retries(once)()
        finally:
            self._silence.forget(me)


class Silence:
    """Who of the calls waits for an answer, so that a person is told once when that begins and once when it is over.

    And once more where somebody answers whom nobody can believe: no waiting mends that.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._num_tries: dict[object, int] = {}     # in vain, by call
        self._told: type[FednodeError] | None = None

    def goes_on(self, call: object, error: FednodeError) -> None:
        self._num_tries[call] = self._num_tries.get(call, 0) + 1
        is_news = self._told is None or (isinstance(error, NotTrusted) and self._told is not NotTrusted)
        if is_news and self._is_anyone_waiting():
            self._told = type(error)
            self._talk.waiting(f"{error.message}; {error.fix}")

    def ended(self, call: object) -> None:
        """This call was answered. While another one still waits, a person need not know."""
        self.forget(call)
        if self._told is not None and not self._is_anyone_waiting():
            self._told = None
            self._talk.back()

    def forget(self, call: object) -> None:
        """Nobody waits for this call's answer any more."""
        self._num_tries.pop(call, None)

    def _is_anyone_waiting(self) -> bool:
        return any(num >= SILENCES_TOLD for num in self._num_tries.values())


def _is_away(error: FednodeError) -> bool:
    return isinstance(error, CannotConnect | TimedOut) or error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _retried(error: FednodeError) -> FednodeError:
    """`error` as one that `with_retries` tries again."""
    is_tried_again = isinstance(error, CannotConnect | TimedOut) and not isinstance(error, NotTrusted)
    return error if is_tried_again else CannotConnect(error.message, fix=error.fix)


def _read(kind: type[B], answer: Any) -> B:
    """The answer's body. Raises VersionMismatch where it is not what this version can read."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        raise _unreadable(f"{kind.__name__}: {error.errors()[0]['msg']}") from None


def _require_id(assignment: str) -> None:
    try:
        check_assignment_id(assignment)
    except BadConfig as error:
        raise _unreadable(error.message) from None


def _require_path(url: str) -> str:
    """Where an update goes, which must be at the same central node: nobody else may get it, or the secret."""
    if not url.startswith("/") or url.startswith("//"):
        raise _unreadable(f"UploadTicket: {url!r} is no path")
    return url


def _unreadable(what: str) -> VersionMismatch:
    return VersionMismatch(
        f"the central node's answer cannot be read ({what})",
        fix="check that the URL is a fednode central node's, and give both sides the same version of fednode",
    )


def _utf8(text: str) -> str:
    """A stranger's text, which may name files in bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def _sendable(code: FailureCode) -> Literal[FailureCode.TASK_ERROR, FailureCode.WITHDRAWN, FailureCode.REFUSED]:
    """`code`, of those that a client may give itself."""
    if code is FailureCode.WITHDRAWN or code is FailureCode.REFUSED:
        return code
    return FailureCode.TASK_ERROR
