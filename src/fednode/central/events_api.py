"""Events as people read them, newest first, as JSON. To follow what happens, programs ask `GET /events?after=SEQ`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fednode.central.asked import Count
from fednode.central.node import CentralNode, Node, Operator
from fednode.core.json import finite
from fednode.core.telling import KINDS, sentence
from fednode.store.event_list import EventList, EventQuery

router = APIRouter(prefix="/api/v1/events", tags=["runs"], dependencies=[Operator])
Kind = Annotated[str, Query(pattern=f"^({'|'.join(KINDS)})?$")]


@router.get("/newest")
async def newest_events(
    node: Node, run: str = "", kind: Kind = "", client: str = "", before: Count = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[dict[str, Any]]:
    """The newest events, each with its sentence: of a run, of a kind, those that name a client; older than `before`."""
    found = await EventList(node.store).newest(await event_query(node, run, kind, client, before), limit)
    return [
        finite({**asdict(one.event), "run": one.run_number, "told": sentence(one.event.what, one.event.fields)})
        for one in found
    ]


async def event_query(node: CentralNode, run: str, kind: str, client: str, before: int = 0) -> EventQuery:
    """From the query of an address. A kind that is none of ours is all of them. Raises NotFound: no such run."""
    run_id = (await node.queries.resolve_run(run)).id if run else ""
    return EventQuery(whats=KINDS.get(kind, ()), run_id=run_id, client=client.strip(), before=max(0, before))
