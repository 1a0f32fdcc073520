"""Run: how far it is, each client's curve, who is slow, what failed, and the model to take away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from fednode.central.asked import Count, Seq
from fednode.central.node import CentralNode, Node
from fednode.central.pages import run_facts as facts_of
from fednode.central.pages.frame import SEE_OTHER, fragment, newest_seq, page_router, render
from fednode.central.pages.live import Change, in_list, in_place, stream
from fednode.central.pages.run_facts import RunFacts, command_of, is_told
from fednode.store.history import RoundRow
from fednode.store.records import Event
from fednode.store.retention import marks_of

router = page_router()


@router.get("/runs/{ref}")
async def run(
    request: Request, ref: str, node: Node, round_number: Count | None = None, before: Count | None = None
) -> Response:
    """The page. `round_number`: whose timeline is shown; `before`: rounds below that number are listed."""
    seq = await newest_seq(node)
    facts = await facts_of.run_facts(node, ref, round_number)
    rounds = [view for view in await facts_of.rounds_before(node, facts.view.run.id, before) if is_told(view)]
    names = [metric.name for metric in facts.view.run.metrics]
    return await render(
        request, "run.html", **await _shown(node, facts), rounds=rounds, names=names, before=before,
        failures=await facts_of.failures(node, facts.view.run.id), command=command_of(facts.view.run.config), seq=seq,
        is_newest=round_number is None,
        live=f"/live/runs/{facts.summary.number}" + (f"?round_number={round_number}" if round_number else ""),
    )


@router.get("/live/runs/{ref}")
async def changes(
    request: Request, ref: str, node: Node, after: Seq = 0, round_number: Count | None = None
) -> StreamingResponse:
    """What changes on it."""
    run_id = (await node.queries.resolve_run(ref)).id

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        ours = [event for event in events if event.run_id == run_id]
        if not ours and not any(node.activity.of(client) for client in clients):
            return Change()
        return await _change(node, await facts_of.run_facts(node, run_id, round_number), ours)

    return stream(request, node, after, news)


@router.post("/runs/{ref}/{verb}")
async def act(ref: str, verb: Literal["pause", "pause-now", "resume", "cancel"], node: Node) -> Response:
    """A button of the page."""
    found = await node.queries.resolve_run(ref)
    if verb.startswith("pause"):
        await node.runs.pause(found.id, is_now=verb == "pause-now")
    else:
        await getattr(node.runs, verb)(found.id)
    return RedirectResponse(f"/runs/{found.number}", SEE_OTHER)


async def _shown(node: CentralNode, facts: RunFacts) -> dict[str, Any]:
    """What the fragments of the page need."""
    return {
        "facts": facts, "run": facts.summary, "activity": node.activity,
        "scores": await facts_of.scores_of_clients(node, facts.view),
        "marks": await node.store.read(lambda c: marks_of(c, facts.view.run.id)),
    }


async def _change(node: CentralNode, facts: RunFacts, events: Sequence[Event]) -> Change:
    shown = await _shown(node, facts)
    rows = [
        in_place("run-head", fragment("run_head.html", **shown)),
        in_place("run-round", fragment("run_round.html", **shown)),
    ]
    numbers = {event.fields["round"] for event in events if "round" in event.fields}
    if numbers:
        rows += await _round_rows(node, facts, numbers)
    if any(event.what in ("failure received", "round abandoned", "round closed", "run crashed") for event in events):
        failures = await facts_of.failures(node, facts.view.run.id)
        rows.append(in_place("run-failures", fragment("run_failures.html", failures=failures, **shown)))
    if any(event.what in ("round committed", "run ended") for event in events):
        rows.append(in_place("run-model", fragment("run_model.html", **shown)))
    return Change(rows=rows, signals={"curves": {}} if _is_measured(events) else {})


async def _round_rows(node: CentralNode, facts: RunFacts, numbers: Collection[Any]) -> list[str]:
    """The rows of the rounds that events speak of, and of the one before: it is measured now."""
    names = [metric.name for metric in facts.view.run.metrics]
    views = await facts_of.rounds_before(node, facts.view.run.id, max(numbers) + 1)
    touched = [view for view in views if {view.round.number, view.round.number + 1} & set(numbers) and is_told(view)]
    return [_round_row(view, names, facts) for view in reversed(touched)]


def _round_row(view: RoundRow, names: Sequence[str], facts: RunFacts) -> str:
    row = fragment("run_rounds_row.html", view=view, names=names, run=facts.summary)
    return in_list("rounds", f"round-{view.round.number}-{view.round.attempt}", row)


def _is_measured(events: Sequence[Event]) -> bool:
    return any(event.what in ("round committed", "evaluation received", "update received") for event in events)
