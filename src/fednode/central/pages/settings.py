"""Settings: what this central node was told at its start, what its store holds, and the token that lets clients in.

Nothing here is edited: what a start reads is changed by a start. A new join token is the one thing that needs none.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from fednode.central.clients_api import new_join_token
from fednode.central.node import Node
from fednode.central.pages.clients import joining
from fednode.central.pages.frame import SEE_OTHER, page_router, render
from fednode.central.settings_api import show_settings

router = page_router()


@router.get("/settings")
async def settings(request: Request, node: Node) -> Response:
    """The page."""
    facts = await show_settings(request, node)
    return await render(request, "settings.html", facts=facts, joining=joining(request, node))


@router.post("/settings/join-token")
async def renew(request: Request, node: Node) -> Response:
    """A new join token: the old one admits nobody any more."""
    await new_join_token(request, node)
    return RedirectResponse("/settings#join", SEE_OTHER)
