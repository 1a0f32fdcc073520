"""Runs: all of them, newest first, in pages; and the start of a comparison."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import PageNumber, Seq
from fednode.central.node import Node
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.live import Change, in_list, in_place, stream
from fednode.central.runs_api import summary_of
from fednode.core.status import RunStatus
from fednode.store.records import Event

PAGE_ROWS = 50

router = page_router()


@router.get("/runs")
async def runs(request: Request, node: Node, status: str = "", page: PageNumber = 1) -> Response:
    """The list; `status` and `page` are in the address."""
    seq = await newest_seq(node)
    page, num_runs = max(1, page), await node.queries.num_runs(status)
    found = await node.queries.run_summaries(status=status, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
    shown = [summary_of(node, view) for view in found]
    return await render(
        request, "runs.html", runs=shown, selectable=True, num_runs=num_runs, status=status, page=page,
        num_pages=max(1, -(-num_runs // PAGE_ROWS)), statuses=[kind.value for kind in RunStatus], seq=seq,
        live=f"/live/runs?status={quote(status)}&page={page}",
    )


@router.get("/live/runs")
async def changes(
    request: Request, node: Node, after: Seq = 0, status: str = "", page: PageNumber = 1
) -> StreamingResponse:
    """Rows that changed; new runs join the first page of the whole list."""

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        rows: list[str] = []
        for run_id in dict.fromkeys(event.run_id for event in events if event.run_id):
            run = summary_of(node, await node.queries.run_summary(run_id))
            row = fragment("runs_row.html", run=run, selectable=True)
            joins = page <= 1 and status == ""
            rows.append(in_list("runs", f"run-{run.number}", row) if joins else in_place(f"run-{run.number}", row))
        return Change(rows=rows)

    return stream(request, node, after, news)
