"""Model: its card. Who made it of what, what it scored, where it comes from, and how to take it home."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from fednode.central.node import Node
from fednode.central.offers import notice_of
from fednode.central.pages.frame import page_router, render
from fednode.store.model_cards import ModelCards

router = page_router()


@router.get("/models/{ref}")
async def model(request: Request, ref: str, node: Node) -> Response:
    """By id, sha256 or a prefix of either. Raises NotFound."""
    card = await ModelCards(node.store, node.queries).card(ref)
    config = card.run.config
    return await render(
        request, "model.html", card=card, model=card.model, config=config, notice=notice_of(node.presence, config)
    )
