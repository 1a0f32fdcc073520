"""Runs, for people and their programs: start, watch, pause, resume, cancel. And what happened, as events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from fednode.central.asked import Count
from fednode.central.node import CentralNode, Node, Operator
from fednode.central.waiting import first_of, hung_up
from fednode.central.work_api import MAX_WAIT_S, Wait
from fednode.core.json import finite
from fednode.core.status import is_final
from fednode.store.deletion import Deletion, plan_deletion
from fednode.store.history import ClientInRound, RoundView
from fednode.store.model_cards import ModelCards
from fednode.store.records import Event
from fednode.store.run_views import RunView
from fednode.wire.messages import DeletionBody, PauseRequest, RunRequest, RunSummary

router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Operator])
After = Count
Limit = Annotated[int, Query(ge=1, le=1_000)]
MAX_ROUNDS = 1_000              # of a history in one answer; `before` asks for older ones


@router.get("/runs")
async def list_runs(node: Node) -> list[RunSummary]:
    """All runs, newest first."""
    return [summary_of(node, view) for view in await node.queries.run_summaries()]


@router.post("/runs", status_code=201)
async def create_run(body: RunRequest, node: Node) -> RunSummary:
    """Accept a run: it plays as soon as the clients of its roster are free."""
    run = await node.runs.create(body)
    return await _summary(node, run.id)


@router.post("/runs/check")
async def check_run(body: RunRequest, node: Node) -> dict[str, Any]:
    """What POST /runs would do with this body: what is wrong, what it would wait for, who would take part."""
    return (await node.runs.check(body)).to_json()


@router.get("/runs/{ref}")
async def show_run(
    ref: str, node: Node, limit: Limit = MAX_ROUNDS, before: Count | None = None
) -> dict[str, Any]:
    """A run by number, id or prefix: its summary, and the newest attempts of its rounds (below `before`)."""
    view = await node.queries.run_summary(ref)
    history = [round_row(round_) for round_ in await node.history.rounds(view.run.id, before=before, limit=limit)]
    metrics = [metric.to_json() for metric in view.run.metrics]
    return {
        **summary_of(node, view).model_dump(mode="json"), "fingerprint": view.run.config.fingerprint,
        "created_s": view.created_s, "started_s": view.started_s, "ended_s": view.ended_s,
        "metrics_round": view.metrics_round, "declared_metrics": metrics, "history": history,
        "models": asdict(await ModelCards(node.store, node.queries).disk_use(view.run.id)),
    }


@router.post("/runs/{ref}/pause")
async def pause_run(ref: str, node: Node, body: PauseRequest | None = None) -> RunSummary:
    """Let the open round end and pause then; with `now`, take back what is unreported and pause at once."""
    run = await node.queries.resolve_run(ref)
    await node.runs.pause(run.id, is_now=body is not None and body.now)
    return await _summary(node, run.id)


@router.post("/runs/{ref}/resume")
async def resume_run(ref: str, node: Node) -> RunSummary:
    """Go on with a paused run, from where it stands."""
    run = await node.queries.resolve_run(ref)
    await node.runs.resume(run.id)
    return await _summary(node, run.id)


@router.post("/runs/{ref}/cancel")
async def cancel_run(ref: str, node: Node) -> RunSummary:
    """End a run for good. Its last committed model stays."""
    run = await node.queries.resolve_run(ref)
    await node.runs.cancel(run.id)
    return await _summary(node, run.id)


@router.get("/runs/{ref}/deletion")
async def show_deletion(ref: str, node: Node) -> DeletionBody:
    """What DELETE of this run would free, and which runs forbid it."""
    run = await node.queries.resolve_run(ref)
    return deletion_of(await node.store.read(lambda c: plan_deletion(c, run.id)))


@router.delete("/runs/{ref}")
async def delete_run(ref: str, node: Node) -> DeletionBody:
    """Delete a run that has ended, with its models, for good. Refused where another run started from one of them."""
    run = await node.queries.resolve_run(ref)
    return deletion_of(await node.runs.delete(run.id))


def deletion_of(plan: Deletion) -> DeletionBody:
    return DeletionBody(
        run_id=plan.run.id, number=plan.run.number, task=plan.run.config.task, status=plan.run.status.value,
        num_models=plan.num_models, num_updates=plan.num_updates, num_rows=plan.num_rows, num_files=len(plan.files),
        num_bytes=plan.num_bytes, needed_by=list(plan.needed_by),
    )


@router.get("/runs/{ref}/metrics")
async def run_metrics(
    ref: str, node: Node, name: str | None = None, client: str | None = None, phase: str | None = None,
    from_round: Count = 0,
) -> list[dict[str, Any]]:
    """Every number that was measured: of the pooled federation (client "") and of each client."""
    run = await node.queries.resolve_run(ref)
    points = await node.queries.metric_points(run.id, name=name, client=client, phase=phase, from_round=from_round)
    return [finite(asdict(point)) for point in points]


@router.get("/runs/{ref}/journal")
async def run_journal(ref: str, node: Node) -> list[dict[str, Any]]:
    """The run's decisions, as a chain of hashes."""
    run = await node.queries.resolve_run(ref)
    return [asdict(row) for row in await node.queries.journal(run.id)]


@router.get("/runs/{ref}/events")
async def run_events(
    ref: str, node: Node, request: Request, after: After = 0, wait: Wait = 0.0, limit: Limit = 200
) -> dict[str, Any]:
    """What happened in a run after event `after`: at once where there is something, else within `wait` seconds."""
    run = await node.queries.resolve_run(ref)
    found = await _events(node, request, after, wait, limit, run.id)
    return {**_event_rows(found, after), "run": (await _summary(node, run.id)).model_dump(mode="json")}


@router.get("/events")
async def all_events(
    node: Node, request: Request, after: After = 0, wait: Wait = 0.0, limit: Limit = 200
) -> dict[str, Any]:
    """What happened at this central node, of all runs and clients."""
    return _event_rows(await _events(node, request, after, wait, limit, ""), after)


async def _events(
    node: CentralNode, request: Request, after: int, wait_s: float, limit: int, run_id: str
) -> list[Event]:
    until_s = node.clock.now_s() + min(wait_s, MAX_WAIT_S)
    seen = after                    # events up to this one are looked through; some are of other runs
    while True:
        found = await node.queries.events(after, limit, run_id)
        left_s = until_s - node.clock.now_s()
        if found or left_s <= 0 or node.closing.is_set():
            return found
        news = asyncio.ensure_future(node.store.wait_for_event(seen, left_s))
        await first_of(news, node.closing.wait(), hung_up(request))
        if not news.done():
            return []
        seen = news.result()


async def _summary(node: CentralNode, run_id: str) -> RunSummary:
    return summary_of(node, await node.queries.run_summary(run_id))


def summary_of(node: CentralNode, view: RunView) -> RunSummary:
    """A run as lists show it. Its clients: who was asked so far, and who takes part from now on."""
    run, config = view.run, view.run.config
    roster = [] if is_final(run.status) else node.presence.roster(config)
    return RunSummary(
        run_id=run.id, number=run.number, task=config.task, strategy=config.strategy, status=run.status.value,
        reason=run.reason, rounds=view.rounds, rounds_planned=config.rounds,
        metrics={name: value for name, value in view.metrics.items() if finite(value) is not None},
        model_sha256=view.model_sha256, seconds=view.seconds, config=dict(config.to_json()),
        clients=sorted({*view.clients, *roster}, key=str.encode),
    )


def round_row(view: RoundView) -> dict[str, Any]:
    """One attempt of a round as JSON."""
    round_, apart = view.round, view.apart
    return {
        "number": round_.number, "attempt": round_.attempt, "kind": round_.kind.value, "status": round_.status.value,
        "reason": round_.reason, "cohort": list(round_.cohort), "base_model": round_.base_model,
        "budget_left_s": view.budget_left_s, "opened_s": view.opened_s, "ended_s": view.ended_s,
        "model_sha256": view.model_sha256, "metrics": finite(dict(view.metrics)),
        "clients": [_client_row(client, apart.get(client.client, "")) for client in view.clients],
    }


def _client_row(view: ClientInRound, apart: str) -> dict[str, Any]:
    failure, change = view.failure, view.change
    return {
        "client": view.client, "status": view.status.value, "deliveries": view.deliveries,
        "num_examples": view.num_examples, "num_bytes": view.num_bytes,
        "leased_s": view.leased_s, "sent_s": view.sent_s, "received_s": view.received_s,
        "norm": finite(change.norm) if change else None, "cosine": change.cosine if change else None, "apart": apart,
        "failure": {"code": failure.code.value, "reason": failure.reason} if failure else None,
    }


def _event_rows(events: Sequence[Event], after: int) -> dict[str, Any]:
    return {"events": [finite(asdict(event)) for event in events], "next": events[-1].seq if events else after}
