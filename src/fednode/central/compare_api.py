"""Runs beside one another, as JSON. What the comparison is made of: `compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fednode.central.compare import MAX_RUNS, compare, require_runs
from fednode.central.node import Node, Operator
from fednode.central.runs_api import summary_of
from fednode.core.json import finite

router = APIRouter(prefix="/api/v1/compare", tags=["runs"], dependencies=[Operator])
RunRefs = Annotated[list[str], Query(
    description="2 to 5 runs, each by number, id or prefix",
    json_schema_extra={"minItems": 1, "maxItems": MAX_RUNS, "uniqueItems": True},       # `require_runs` says it better
)]
MaxPoints = Annotated[int, Query(ge=10, le=5_000)]


@router.get("")
async def compare_runs(node: Node, run: RunRefs, max_points: MaxPoints = 500) -> dict[str, Any]:
    """2 to 5 runs (`?run=1&run=2`): settings, pooled metrics, curves, and each client's own local-only run.

    One run will do where its clients have trained alone, each in a run of its own.
    """
    found = await compare(node.queries, run)
    runs = [view.run for view in found.runs]
    curves = {row.name: asdict(await node.queries.pooled_curves(runs, row.name, max_points)) for row in found.metrics}
    return {
        "runs": [summary_of(node, view).model_dump(mode="json") for view in found.runs],
        **finite({
            "settings": [asdict(row) for row in found.settings], "metrics": [asdict(row) for row in found.metrics],
            "cautions": found.cautions, "curves": curves, "alone": asdict(found.alone) if found.alone else None,
        }),
    }


@router.get("/curves")
async def compare_curves(
    node: Node, run: RunRefs, name: str | None = None, max_points: MaxPoints = 500
) -> dict[str, Any]:
    """One metric of these runs over their rounds, pooled. Without `name`: the first that a task declares."""
    runs = await require_runs(node.queries, run)
    return finite(asdict(await node.queries.pooled_curves(runs, name, max_points)))  # type: ignore[no-any-return]
