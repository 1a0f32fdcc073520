"""How a client brings an update: announced, then sent, whole or in pieces; in the store before the last answer leaves.

Every step may be repeated: an answer that was lost costs nothing. What cannot be taken is refused at the announcement,
or ends the assignment as `refused`, so that no round waits for it. The streaming itself: `uploads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, BackgroundTasks, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from fednode.central.answers import Refusal
from fednode.central.asked import Count
from fednode.central.leases import assignment_id
from fednode.central.node import CentralNode, Client, Node
from fednode.central.uploads import Upload, require_length
from fednode.central.work_api import find_assignment
from fednode.core.records import Assignment, Failure, Outcome, Round, Update
from fednode.core.status import FailureCode
from fednode.errors import BadParamsFile, Conflict, FednodeError, ParamsError, RoundClosed, TooLarge
from fednode.failpoints import halves, reach, reach_after_sending
from fednode.store import events, rules
from fednode.store.received import received_update
from fednode.store.records import Blob
from fednode.store.reports import Placed
from fednode.wire.codec import params_at
from fednode.wire.messages import OFFSET_HEADER, Announcement, UploadTicket

NO_PROGRESS_S = 60.0            # a body of which nothing comes for so long is given up; what came stays

router = APIRouter(prefix="/api/v1/assignments/{assignment}/update", tags=["work"])
Offset = Count


@router.post("")
async def announce_update(assignment: str, body: Announcement, client: Client, node: Node) -> UploadTicket:
    """What will come. Refused here, before a byte is sent, if it will not be taken; may be repeated freely."""
    round_, found = await find_assignment(node, client.name, assignment)
    known = await _received(node, round_, client.name)
    if known is not None and (known.digest, known.num_bytes) == (body.digest, body.num_bytes):
        return UploadTicket(url=_url(assignment), offset=body.num_bytes, is_complete=True)
    await _require_wanted(node, round_, found)
    try:
        upload = await node.uploads.announce(round_, client.name, body)
    except (ParamsError, TooLarge) as error:
        await _refuse(node, round_, client.name, error)
        raise
    reach("update.announced", round_.number)
    node.activity.note(client.name, round_, "uploading")
    return await _ticket(node, assignment, round_, client.name, upload)


@router.head("")
async def tell_offset(assignment: str, client: Client, node: Node) -> Response:
    """How many bytes of the announced update are here, in the header Upload-Offset."""
    round_, _ = await find_assignment(node, client.name, assignment)
    known = await _received(node, round_, client.name)
    offset = known.num_bytes if known else (await node.uploads.find(round_, client.name)).offset
    return Response(headers={OFFSET_HEADER: str(offset)})


@router.put("")
async def receive_update(
    assignment: str, client: Client, node: Node, request: Request, afterwards: BackgroundTasks, offset: Offset = 0
) -> UploadTicket:
    """The announced bytes, from `offset` on. A broken connection loses nothing; the last byte makes the report."""
    round_, found = await find_assignment(node, client.name, assignment)
    known = await _received(node, round_, client.name)
    if known is not None and offset == known.num_bytes:
        return UploadTicket(url=_url(assignment), offset=offset, is_complete=True)
    await _require_wanted(node, round_, found)
    upload = await node.uploads.find(round_, client.name)
    require_length(upload, offset, request.headers.get("content-length"))
    reach("update.begun", round_.number)
    try:
        await node.uploads.receive(upload, _chunks(request, node, client.name, round_, upload))
    except (Refusal, Conflict):         # cut or broken off: perhaps because its round is over
        await _require_wanted(node, *await find_assignment(node, client.name, assignment))
        raise
    await node.doors.client_of(request)     # it may have been revoked meanwhile
    reach("update.received", round_.number)
    afterwards.add_task(reach_after_sending, "update.answered", round_.number)
    return await _ticket(node, assignment, round_, client.name, upload)


async def _received(node: CentralNode, round_: Round, client: str) -> Placed | None:
    """What the store has of this client's update. Nothing as long as it is waited for."""
    if node.leases.find(client, assignment_id(round_)) is not None:
        return None
    return await node.store.read(lambda c: received_update(c, round_, client))


async def _require_wanted(node: CentralNode, round_: Round, found: Assignment) -> None:
    """Raise AlreadyReported, Withdrawn or RoundClosed where nothing more is taken; the late one goes on record."""
    try:
        rules.require_news(round_, found, is_same=False)
    except RoundClosed:
        story = events.late(round_, found.client)
        await node.store.record_event(story.what, story.fields, story.run_id)
        raise


async def _chunks(
    request: Request, node: CentralNode, client: str, round_: Round, upload: Upload
) -> AsyncIterator[bytes]:
    """The body as it comes; each piece is a sign of life."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(NO_PROGRESS_S) as upload.waiting:
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except (TimeoutError, ClientDisconnect):
            raise Refusal(408, "timed_out", "the body broke off", "ask by HEAD for the offset, and go on") from None
        node.presence.heard(client)
        if chunk:
            for piece in halves(chunk, "update.half_received", round_.number):
                yield piece


async def _ticket(node: CentralNode, assignment: str, round_: Round, client: str, upload: Upload) -> UploadTicket:
    """Where the upload stands; a whole one is reported first, whichever request finds it whole."""
    if upload.is_complete:
        async with upload.finishing:
            await _report(node, round_, client, upload)
    return UploadTicket(url=_url(assignment), offset=upload.offset, is_complete=upload.is_complete)


async def _report(node: CentralNode, round_: Round, client: str, upload: Upload) -> None:
    """Take a whole body into the store. Raises what is wrong with it, or that it is not wanted any more."""
    if not node.uploads.is_open(upload):
        if await _received(node, round_, client) is None:
            raise Conflict("another connection ended this upload", fix="announce the update again")
        return
    blob = await _sound_blob(node, round_, client, upload)
    announced = upload.announced
    update = Update(
        client=client, params=params_at(blob.path), num_examples=announced.num_examples,
        environment=announced.environment,
    )
    try:
        await node.store.report(round_, Outcome(client=client, update=update), blob)
    except FednodeError:
        node.uploads.drop(upload)
        raise
    reach("update.committed", round_.number)
    node.uploads.forget(upload)
    node.leases.settle(round_, client)
    node.activity.rest(client)


async def _sound_blob(node: CentralNode, round_: Round, client: str, upload: Upload) -> Blob:
    try:
        await node.uploads.require_arrived(upload)
        reach("update.fsynced", round_.number)
    except BadParamsFile:
        node.uploads.drop(upload)
        raise
    try:
        return await node.uploads.require_sound(upload)
    except (ParamsError, TooLarge) as error:
        await _refuse(node, round_, client, error)
        raise


async def _refuse(node: CentralNode, round_: Round, client: str, error: FednodeError) -> None:
    """Nothing better will come from this client: its assignment has failed, and the round does not wait for it."""
    failure = Failure(client=client, code=FailureCode.REFUSED, reason=f"{error.message}; {error.fix}")
    node.uploads.drop_all(round_, client)
    await node.store.report(round_, Outcome(client=client, failure=failure))
    node.leases.settle(round_, client)
    node.activity.rest(client)


def _url(assignment: str) -> str:
    return f"/api/v1/assignments/{assignment}/update"
