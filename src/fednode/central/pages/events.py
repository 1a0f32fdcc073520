"""Events: what happened, newest first, in sentences; of one run, one client or one kind where that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import Seq
from fednode.central.events_api import event_query
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.lists import address
from fednode.central.pages.live import Change, in_list, stream
from fednode.core.telling import KINDS, sentence
from fednode.store.event_list import EventList, ListedEvent, is_of
from fednode.store.records import Event

PAGE_EVENTS = 100
# How an event is marked; a run's end and a measured failure say it by themselves, the others are neutral.
MARKS = {
    "run crashed": "failed", "run paused": "paused", "run started": "running", "round committed": "committed",
    "round abandoned": "abandoned", "failure received": "failed", "late": "failed", "client gone": "gone",
    "client back": "online", "client joined": "online", "client revoked": "revoked",
}

router = page_router()


@router.get("/events")
async def events(
    request: Request, node: Node, run: str = "", kind: str = "", client: str = "", before: Seq = 0
) -> Response:
    """The list; all that was chosen is in the address. Raises NotFound where there is no such run."""
    seq, query = await newest_seq(node), await event_query(node, run, kind, client, before)
    found = await EventList(node.store).newest(query, PAGE_EVENTS + 1)
    shown = [told(one) for one in found[:PAGE_EVENTS]]
    chosen = {"run": run, "kind": kind if kind in KINDS else "", "client": client}
    return await render(
        request, "events.html", events=shown, chosen=chosen, kinds=list(KINDS), before=before, seq=seq,
        older=address("/events", **chosen, before=shown[-1]["seq"]) if len(found) > PAGE_EVENTS else "",
        to=lambda **changes: address("/events", **{**chosen, **changes}), max_rows=PAGE_EVENTS,
        live=address("/live/events", **chosen) if not before else "/live",
    )


@router.get("/live/events")
async def changes(
    request: Request, node: Node, after: Seq = 0, run: str = "", kind: str = "", client: str = ""
) -> StreamingResponse:
    """What happens, at the head of the list."""
    query = await event_query(node, run, kind, client)

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        new = [event for event in events if is_of(event, query)][-PAGE_EVENTS:]
        numbers = await _run_numbers(node, {event.run_id for event in new if event.run_id})
        listed = (ListedEvent(event=event, run_number=numbers.get(event.run_id)) for event in new)
        return Change(rows=[
            in_list("events", f"event-{one.event.seq}", fragment("events_row.html", event=told(one))) for one in listed
        ])

    return stream(request, node, after, news)


def told(one: ListedEvent) -> dict[str, Any]:
    """What a row shows."""
    event = one.event
    return {
        "seq": event.seq, "wall_s": event.wall_s, "run_number": one.run_number,
        "sentence": sentence(event.what, event.fields), "traceback": event.fields.get("traceback", ""),
        "mark": event.fields["status"] if event.what == "run ended" else MARKS.get(event.what, ""),
    }


async def _run_numbers(node: CentralNode, run_ids: Collection[str]) -> dict[str, int]:
    return {run_id: (await node.queries.resolve_run(run_id)).number for run_id in run_ids}


