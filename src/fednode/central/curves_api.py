"""A run's scores as curves, thinned to what a screen can show: what the pages draw, and its own JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fednode.central.asked import Count
from fednode.central.node import Node, Operator
from fednode.core.json import finite

router = APIRouter(prefix="/api/v1/runs", tags=["runs"], dependencies=[Operator])


@router.get("/{ref}/curves")
async def run_curves(
    ref: str, node: Node, name: str | None = None, max_points: Annotated[int, Query(ge=2, le=5_000)] = 500,
    from_round: Count = 0,
) -> dict[str, Any]:
    """One metric over the rounds: pooled, and of each client; of more than 12 clients the band and its extremes.

    `rounds` are of the models that were measured: every `step`-th (a power of two that grows with the run) and
    the newest. `from_round` leaves out what the caller has. Without `name`: the first metric that the task declares.
    """
    view = await node.queries.curves(ref, name, max_points, from_round)
    return finite(asdict(view))  # type: ignore[no-any-return]
