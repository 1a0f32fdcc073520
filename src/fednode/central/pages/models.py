"""Models: every committed one, newest first, in pages; of one run where it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import PageNumber, Seq
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.lists import PAGE_ROWS, Paging, address
from fednode.central.pages.live import Change, in_list, in_place, stream
from fednode.core.records import Run
from fednode.store.model_cards import ModelCards
from fednode.store.records import Event

NUM_FRESH = 10                  # newest models that a commit may change: made, or measured by it

router = page_router()


@router.get("/models")
async def models(request: Request, node: Node, run: str = "", page: PageNumber = 1) -> Response:
    """The list; `run` and `page` are in the address. Raises NotFound where there is no such run."""
    seq, of_run, cards = await newest_seq(node), await _run_of(node, run), ModelCards(node.store, node.queries)
    run_id = of_run.id if of_run else None
    paging = Paging(asked=page, num_rows=await cards.count(run_id))
    shown = await cards.page(run_id, limit=PAGE_ROWS, offset=paging.offset)
    number = of_run.number if of_run else ""
    return await render(
        request, "models.html", models=shown, of_run=of_run, paging=paging, seq=seq, use=await cards.disk_use(run_id),
        to_page=lambda number_: address("/models", run=number, page=number_),
        live=address("/live/models", run=number, page=paging.page),
    )


@router.get("/live/models")
async def changes(
    request: Request, node: Node, after: Seq = 0, run: str = "", page: PageNumber = 1
) -> StreamingResponse:
    """Models that were made join the first page; the one before is measured then."""
    of_run, cards = await _run_of(node, run), ModelCards(node.store, node.queries)
    put = partial(in_list, "models") if page <= 1 else in_place

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        made = {event.run_id for event in events if event.what in ("round committed", "run created")}
        if not made or (of_run and of_run.id not in made):
            return Change()
        fresh = await cards.page(of_run.id if of_run else None, limit=NUM_FRESH)
        return Change(rows=[put(model.id, fragment("models_row.html", model=model)) for model in reversed(fresh)])

    return stream(request, node, after, news)


async def _run_of(node: CentralNode, ref: str) -> Run | None:
    return await node.queries.resolve_run(ref) if ref else None
