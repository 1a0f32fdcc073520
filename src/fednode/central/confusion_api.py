"""What a model takes for what, as JSON: what the panel of a run's page and of a model's is drawn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from fednode.central.asked import Count
from fednode.central.node import CentralNode, Node, Operator
from fednode.central.offers import known_offer
from fednode.core.json import finite
from fednode.core.records import Run
from fednode.store.confusions import ConfusionView

TWO = ("negative", "positive")

router = APIRouter(prefix="/api/v1/runs", tags=["runs"], dependencies=[Operator])


@router.get("/{ref}/confusion")
async def run_confusion(
    ref: str, node: Node, of: str | None = None, round: Count | None = None, client: str = ""
) -> dict[str, Any]:
    """A model's score histogram (negatives, positives) or confusion matrix (rows: truth), pooled or one client's.

    `round`: of the model; without it the newest that was pooled. `of`: one of `names`; without it the first. With a
    histogram comes the `threshold` that the run's own numbers are cut at. Where the task has neither, `names` is empty.
    """
    view = await node.queries.confusion(ref, of, round, client)
    run = await node.queries.resolve_run(ref)
    return finite({**asdict(view), "classes": _classes(node, run, view)})  # type: ignore[no-any-return]


def _classes(node: CentralNode, run: Run, view: ConfusionView) -> list[str]:
    """In the order of the rows: as the task calls them, where a client that offers it is enrolled."""
    num = len(view.counts)
    offer = known_offer(node.presence, run.config)
    if offer is not None and len(offer.classes) == num:
        return list(offer.classes)
    return list(TWO) if num == len(TWO) else [f"class {index}" for index in range(num)]
