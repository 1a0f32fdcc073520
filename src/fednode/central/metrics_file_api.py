"""All numbers of a run as one file, CSV or JSON, that grows as it is read: no more than a page of it is in memory.

The table is long: one row a number, each of one run, model, client, phase, step and name.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import fields

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from fednode.central.asked import Count
from fednode.central.node import CentralNode, Node, Operator
from fednode.core.csv_text import csv_lines
from fednode.core.json import finite
from fednode.core.records import Run
from fednode.store.metric_rows import MetricRow, MetricRows

COLUMNS = ("run", *(column.name for column in fields(MetricRow)))

router = APIRouter(prefix="/api/v1/runs", tags=["runs"], dependencies=[Operator])


@router.get(
    "/{ref}/metrics.csv", response_class=StreamingResponse, responses={200: {"content": {"text/csv": {}}}}
)
async def metrics_csv(ref: str, node: Node, from_round: Count = 0) -> StreamingResponse:
    """Every number that was measured, one a row, with the names of the columns in the first. No curves."""
    run = await node.queries.resolve_run(ref)
    return _file(_csv(node, run, from_round), f"run-{run.number}-metrics.csv", "text/csv")


@router.get(
    "/{ref}/metrics.json", response_class=StreamingResponse, responses={200: {"content": {"application/json": {}}}}
)
async def metrics_json(ref: str, node: Node, from_round: Count = 0) -> StreamingResponse:
    """The same rows as a list of objects. What is not finite is null."""
    run = await node.queries.resolve_run(ref)
    return _file(_json(node, run, from_round), f"run-{run.number}-metrics.json", "application/json")


def _file(pieces: AsyncIterator[str], name: str, media_type: str) -> StreamingResponse:
    return StreamingResponse(
        pieces, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


async def _pages(node: CentralNode, run: Run, from_round: int) -> AsyncIterator[list[MetricRow]]:
    async for page in MetricRows(node.store).pages(run.id, from_round):
        yield page
    await node.queries.resolve_run(run.id)      # deleted meanwhile: half a table must not look like a whole one


async def _csv(node: CentralNode, run: Run, from_round: int) -> AsyncIterator[str]:
    yield csv_lines([COLUMNS])
    async for page in _pages(node, run, from_round):
        yield csv_lines((run.number, *vars(row).values()) for row in page)


async def _json(node: CentralNode, run: Run, from_round: int) -> AsyncIterator[str]:
    before = "["
    async for page in _pages(node, run, from_round):
        yield before + ", ".join(json.dumps(finite({"run": run.number, **vars(row)})) for row in page)
        before = ", "
    yield "[]\n" if before == "[" else "]\n"
