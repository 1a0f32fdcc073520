"""A run's journal: its decisions as a chain of hashes, a page at a time, and whether the chain holds."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from fednode.central.asked import PageNumber
from fednode.central.node import Node
from fednode.central.pages.frame import page_router, render
from fednode.central.pages.lists import Paging, address
from fednode.core.journal import JournalRow
from fednode.core.json import canonical_json
from fednode.core.telling import decision
from fednode.store.journal_pages import JournalPages

PAGE_ROWS = 100
MAX_CHECKED = 3_000             # rows whose hashes are made at every look; a longer chain is checked when asked for

router = page_router()


@router.get("/runs/{ref}/journal")
async def journal(request: Request, ref: str, node: Node, page: PageNumber = 1, check: bool = False) -> Response:
    """The page. `check`: read a long chain whole. Raises NotFound."""
    run, pages = await node.queries.resolve_run(ref), JournalPages(node.store)
    num_rows = (await pages.page(run.id, first=1, limit=1)).num_rows
    paging = Paging(asked=page, num_rows=num_rows, size=PAGE_ROWS)
    found = await pages.page(run.id, first=paging.offset + 1, limit=PAGE_ROWS)
    is_checked = check or num_rows <= MAX_CHECKED
    return await render(
        request, "journal.html", run=run, rows=[_told(row) for row in found.rows], found=found, paging=paging,
        is_checked=is_checked, damage=await pages.damage(run.id) if is_checked else "",
        to_page=lambda number: address(f"/runs/{run.number}/journal", page=number),
    )


def _told(row: JournalRow) -> dict[str, Any]:
    return {"seq": row.seq, "hash": row.hash, "told": decision(row.entry), "entry": canonical_json(row.entry)}
