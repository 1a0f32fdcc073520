"""Overview: what the federation is doing, who belongs to it, and the button that launches a training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import Seq
from fednode.central.client_facts import ClientQuery, client_rows, find_clients
from fednode.central.node import CentralNode, Node
from fednode.central.offers import MergedOffer, merged_offers
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.live import Change, in_list, in_place, stream
from fednode.central.runs_api import summary_of
from fednode.core.status import RunStatus
from fednode.store.records import Event
from fednode.wire.messages import RunSummary

NUM_SHOWN = 8               # runs, and clients: the lists have all of them

router = page_router()


@router.get("/")
async def overview(request: Request, node: Node) -> Response:
    """The first page."""
    seq = await newest_seq(node)
    return await render(request, "overview.html", **await _facts(request, node), seq=seq, live="/live/overview")


@router.get("/live/overview")
async def changes(request: Request, node: Node, after: Seq = 0) -> StreamingResponse:
    """What changes on it."""

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        facts = await _facts(request, node)
        touched = {event.run_id for event in events}
        runs = [run for run in facts["runs"] if run.run_id in touched]
        is_new = any(event.what == "run created" for event in events)
        newest = fragment("overview_newest.html", **facts) if is_new else ""
        return Change(signals={"curves": {}} if touched else {}, rows=[
            in_place("overview-facts", fragment("overview_facts.html", **facts)),
            in_place("overview-launch", fragment("overview_launch.html", **facts)),
            *([in_place("overview-newest", newest)] if newest else []),
            *(_run(run) for run in reversed(runs)),
            *(_client(client) for client in facts["clients"] if _is_touched(client, events, clients)),
        ])

    return stream(request, node, after, news)


def _run(run: RunSummary) -> str:
    return in_list("runs", f"run-{run.number}", fragment("runs_row.html", run=run, selectable=False))


def _client(client: dict[str, Any]) -> str:
    row = fragment("clients_row.html", client=client)
    return in_list("clients", f"client-{client['client_id']}", row)


def _is_touched(client: dict[str, Any], events: Sequence[Event], clients: Collection[str]) -> bool:
    """Whether its row may look different: its step changed, or an event names it (or nobody in particular)."""
    name = client["name"]
    return name in clients or any(event.fields.get("client", name) == name for event in events)


async def _facts(request: Request, node: CentralNode) -> dict[str, Any]:
    found = await find_clients(node, ClientQuery(sort="there"))
    num_online = sum(found.counts[status] for status in ("online", "busy"))
    runs = [summary_of(node, view) for view in await node.queries.run_summaries(limit=NUM_SHOWN)]
    active = await _active(node)
    return {
        "clients": await client_rows(node, found.names[:NUM_SHOWN]), "num_clients": len(found.names),
        "num_online": num_online,
        "selectable": False, "runs": runs[:NUM_SHOWN], "num_runs": await node.queries.num_runs(),
        "status": active.status if active else "idle", "current": active, "newest": active or next(iter(runs), None),
        "tasks": _tasks(merged_offers(node.presence.members())),
        "url": node.base_url(request),
    }


async def _active(node: CentralNode) -> RunSummary | None:
    """The run that plays, or waits for its turn."""
    for status in (RunStatus.RUNNING, RunStatus.QUEUED):
        for view in await node.queries.run_summaries(status=status.value, limit=1):
            return summary_of(node, view)
    return None


def _tasks(offers: Sequence[MergedOffer]) -> list[dict[str, Any]]:
    """One entry a task: how many offer it, whatever their version."""
    found: dict[str, int] = {}
    for merged in offers:
        found[merged.offer.task] = found.get(merged.offer.task, 0) + len(merged.clients)
    return [{"task": task, "num_clients": count} for task, count in found.items()]
