"""Try it: draw a digit and see what a model makes of it; while a run trains, its newest model. Nothing is kept.

The page's JSON twin is `GET /api/v1/predictions/choices`; the drawing itself happens in the browser (`draw.js`,
`try_it.js`), which asks `POST /api/v1/models/{ref}/predictions`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.asked import Seq
from fednode.central.node import CentralNode, Node
from fednode.central.offers import merged_offers
from fednode.central.pages.frame import newest_seq, page_router, render
from fednode.central.pages.live import Change, stream
from fednode.central.predictions_api import choice_of_model, choices_of, list_choices
from fednode.core.json import JsonObject
from fednode.store.records import Event
from fednode.wire.messages import Choice

MOVES = ("run created", "run started", "run resumed", "run paused", "run ended", "round committed")

router = page_router()


@dataclass(frozen=True)
class Option:
    """One entry of the list of models; `value` is also the page's query that chooses it."""

    value: str
    choice: Choice
    text: str

    def to_json(self) -> JsonObject:
        return {"value": self.value, "choice": self.choice.model_dump(mode="json"), "text": self.text}


@router.get("/try")
async def try_it(request: Request, node: Node, run: str = "", model: str = "") -> Response:
    """The page. `run`: its newest model; `model`: that one; else what trains now, or was trained last."""
    seq = await newest_seq(node)
    options = await _options(node, run, model)
    chosen = _chosen(options, is_named=bool(run or model))
    return await render(
        request, "try_it.html", options=options, chosen=chosen, seq=seq, live="/live/try",
        tasks=[merged.offer.task for merged in merged_offers(node.presence.members())],
        url=node.base_url(request),
    )


@router.get("/live/try")
async def changes(request: Request, node: Node, after: Seq = 0) -> StreamingResponse:
    """Which runs have a newer model, or another status."""

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        moved = dict.fromkeys(event.run_id for event in events if event.run_id and event.what in MOVES)
        if not moved:
            return Change()
        choices = await choices_of(node, [await node.queries.run_summary(run_id) for run_id in moved])
        return Change(signals={"options": [_of_run(choice).to_json() for choice in choices]})

    return stream(request, node, after, news)


async def _options(node: CentralNode, run: str, model: str) -> list[Option]:
    """The newest runs; in front of them what was asked for by name."""
    options = [_of_run(choice) for choice in await list_choices(node)]
    if model:
        choice = await choice_of_model(node, model)
        text = f"Run #{choice.run} · {choice.task} · model of round {choice.round}"
        return [Option(f"model={choice.model_sha256}", choice, text), *options]
    if run:
        named = _of_run((await choices_of(node, [await node.queries.run_summary(run)]))[0])
        return [named, *(option for option in options if option.value != named.value)]
    return options


def _of_run(choice: Choice) -> Option:
    return Option(f"run={choice.run}", choice, f"Run #{choice.run} · {choice.task} · {_what(choice)}")


def _what(choice: Choice) -> str:
    if choice.problem:
        return "cannot be tried here"
    if choice.is_live:
        return f"newest model ({choice.status})"
    return "final model"


def _chosen(options: Sequence[Option], *, is_named: bool) -> Option | None:
    """What was named is first; else a run that plays, a model that can be tried, whatever there is."""
    if not options or is_named:
        return options[0] if options else None
    able = [option for option in options if option.choice.problem is None]
    running = [option for option in able if option.choice.status == "running"]
    with_model = [option for option in able if option.choice.model_sha256]
    return [*running, *with_model, *able, *options][0]
