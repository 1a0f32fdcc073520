"""Models: what there is, and the params themselves, immutable and named by their hash."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from fednode.central.asked import MOST, Count
from fednode.central.auth import bearer_of
from fednode.central.models import params_response
from fednode.central.node import Node, Operator, node_of
from fednode.central.offers import notice_of
from fednode.core.json import finite
from fednode.store.model_cards import ModelCards
from fednode.wire.messages import MEDIA_TYPE

SHA256 = re.compile(r"[0-9a-f]{64}")

router = APIRouter(prefix="/api/v1/models", tags=["models"])


async def member_or_operator(request: Request) -> None:
    """A client of this federation, or somebody who operates it. Raises NotAuthorised."""
    node = node_of(request)
    if bearer_of(request).startswith("sec_"):
        await node.doors.client_of(request)
    else:
        node.doors.require_operator(request)


@router.get("", dependencies=[Operator])
async def list_models(
    node: Node, run: str = "", limit: Annotated[int | None, Query(ge=1, le=MOST)] = None,
    offset: Count = 0,
) -> list[dict[str, Any]]:
    """Committed models, newest first: all of them, those of a run, or a page of them."""
    run_id = (await node.queries.resolve_run(run)).id if run else None
    if limit is None:
        found = (await node.queries.models(run_id))[offset:]
    else:
        found = await ModelCards(node.store, node.queries).page(run_id, limit=limit, offset=offset)
    return [finite(asdict(view)) for view in found]


@router.get("/{ref}", dependencies=[Operator])
async def show_model(ref: str, node: Node) -> dict[str, Any]:
    """One model, by id, sha256 or a unique prefix of either."""
    return finite(asdict(await node.queries.model(ref)))  # type: ignore[no-any-return]


@router.get("/{ref}/card", dependencies=[Operator])
async def show_card(ref: str, node: Node) -> dict[str, Any]:
    """How a model came about: its run's config, who trained it, and the models that it comes from."""
    card = await ModelCards(node.store, node.queries).card(ref)
    return finite({  # type: ignore[no-any-return]
        **asdict(card), "run": {"run_id": card.run.id, "number": card.run.number, "config": card.run.config.to_json()},
        "notice": notice_of(node.presence, card.run.config),
    })


@router.head("/{ref}/params", dependencies=[Depends(member_or_operator)], include_in_schema=False)
@router.get(
    "/{ref}/params", dependencies=[Depends(member_or_operator)], response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 206: {"description": "a part"}, 304: {"description": "known"}},
)
async def get_params(
    ref: str, node: Node, asked_range: Annotated[str | None, Header(alias="Range")] = None,
    known: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """The params file: whole, or one range of it, or 304 where the caller has it."""
    sha256 = ref if SHA256.fullmatch(ref) else (await node.queries.model(ref)).sha256
    await node.store.model_bytes(sha256)            # a file is a model's only when a row says so
    buffer = node.models.get(node.store.model_path(sha256))
    return params_response(buffer, sha256, asked_range=asked_range, known=known)
