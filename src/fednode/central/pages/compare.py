"""Compare: two to five runs beside one another, and the federated model against what each client reached alone.

Which runs, and whether equal settings are shown too, is in the address. What is compared, and how: `central/compare`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import Seq
from fednode.central.compare import Comparison, compare, require_runs
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.live import Change, in_place, stream
from fednode.central.pages.run_facts import command_of
from fednode.central.runs_api import summary_of
from fednode.errors import UsageError
from fednode.store.alone import AloneScore, AloneTable
from fednode.store.records import Event

PICKED_FROM = 50                # runs, the newest
TELLING = ("round committed", "run ")       # events after which scores or statuses are others

router = page_router()
RunRefs = Annotated[list[str], Query(default_factory=list)]


@dataclass(frozen=True)
class Span:
    """One client's two scores as places on a scale, in percent of its width."""

    alone: float
    federated: float


@router.get("/compare")
async def comparison(request: Request, node: Node, run: RunRefs, only: str = "") -> Response:
    """The page; where these runs cannot be compared, what is wrong and a list to choose others from."""
    seq = await newest_seq(node)
    try:
        found = await compare(node.queries, run)
    except UsageError as error:
        if error.http_status == 404:
            raise
        return await _choice(request, node, run, error)
    asked = urlencode([("run", view.run.number) for view in found.runs])
    return await render(
        request, "compare.html", **_scores(node, found), asked=asked, only=only, command=_alone_command(found),
        settings=sorted(found.settings, key=lambda row: not row.differs), spans=_spans(found.alone), seq=seq,
        num_different=sum(row.differs for row in found.settings), live=f"/live/compare?{asked}",
    )


@router.get("/live/compare")
async def changes(request: Request, node: Node, run: RunRefs, after: Seq = 0) -> StreamingResponse:
    """Scores and curves, as rounds of these runs are measured."""
    ids = {found.id for found in await require_runs(node.queries, run)}

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        if not any(event.run_id in ids and event.what.startswith(TELLING) for event in events):
            return Change()
        shown = _scores(node, await compare(node.queries, run))
        return Change(rows=[in_place("scores", fragment("compare_scores.html", **shown))], signals={"curves": {}})

    return stream(request, node, after, news)


async def _choice(request: Request, node: CentralNode, refs: Sequence[str], error: UsageError) -> Response:
    """Nothing is wrong yet with whoever has named no run, or the first one."""
    views = (await node.queries.run_summaries())[:PICKED_FROM]
    return await render(
        request, "compare_choice.html", status_code=200 if len(refs) < 2 else error.http_status,
        problem=error if refs else None, chosen={ref.removeprefix("#") for ref in refs},
        runs=[summary_of(node, view) for view in views],
    )


def _scores(node: CentralNode, found: Comparison) -> dict[str, Any]:
    """What the part of the page needs that its stream pushes."""
    return {"found": found, "runs": [summary_of(node, view) for view in found.runs]}


def _alone_command(found: Comparison) -> str:
    """How to train one client alone, for whoever compares a federated run without such a table."""
    federated = next((view for view in found.runs if len(view.clients) > 1), None)
    if found.alone is not None or federated is None:
        return ""
    return command_of(replace(federated.run.config, clients=federated.clients[:1], min_updates=1))


def _spans(table: AloneTable | None) -> dict[str, Span]:
    """By client, on a scale from the lowest score of the table to the highest."""
    rows: Sequence[AloneScore] = table.clients if table else ()
    values = [value for row in rows for value in (row.alone, row.federated)]
    low, width = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)

    def place(value: float) -> float:
        return round(5 + 90 * (value - low) / width, 1) if width else 50.0

    return {row.client: Span(place(row.alone), place(row.federated)) for row in rows}
