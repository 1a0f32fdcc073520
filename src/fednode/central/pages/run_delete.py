"""Delete a run: first what that frees and who forbids it, then the button."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from fednode.central.node import Node
from fednode.central.pages.frame import SEE_OTHER, page_router, render
from fednode.central.runs_api import deletion_of
from fednode.core.status import is_final
from fednode.store.deletion import plan_deletion

router = page_router()


@router.get("/runs/{ref}/delete")
async def ask(request: Request, ref: str, node: Node) -> Response:
    """What would go. Raises NotFound."""
    run = await node.queries.resolve_run(ref)
    plan = await node.store.read(lambda c: plan_deletion(c, run.id))
    return await render(request, "run_delete.html", plan=deletion_of(plan), is_over=is_final(run.status))


@router.post("/runs/{ref}/delete")
async def delete(ref: str, node: Node) -> Response:
    """Gone, for good. Raises NotFound, IllegalMove, Conflict."""
    run = await node.queries.resolve_run(ref)
    await node.runs.delete(run.id)
    return RedirectResponse("/runs", SEE_OTHER)
