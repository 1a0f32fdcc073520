"""The central node as a web app: its parts put together, its routes, its life. Start reading at `create_app`.

What each group of paths does is in `*_api.py`; who may call it in `auth`; what every request passes first in `gate`.
The process around it (socket, signals, tokens on disk) is `serve`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles

from fednode.central import (
    clients_api,
    compare_api,
    confusion_api,
    curves_api,
    events_api,
    metrics_file_api,
    models_api,
    predictions_api,
    runs_api,
    settings_api,
    updates_api,
    work_api,
)
from fednode.central.activity import Activity
from fednode.central.attendance import Attendance
from fednode.central.auth import Doors
from fednode.central.error_answers import add_error_answers
from fednode.central.gate import Gate
from fednode.central.leases import Leases
from fednode.central.models import ModelBuffers
from fednode.central.node import CentralNode, CentralSettings, Operator
from fednode.central.nonces import Nonces
from fednode.central.pages.routes import PAGES
from fednode.central.predictions import Predictions
from fednode.central.presence import Member, Presence
from fednode.central.runs import Runs
from fednode.central.tokens import TokenFile
from fednode.central.uploads import Uploads
from fednode.central.waiting import TICK_S
from fednode.errors import StoreError
from fednode.ports import Clock
from fednode.store.event_list import EventList
from fednode.store.history import History
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.web.headers import whole_files
from fednode.web.look import STATIC_DIR
from fednode.wire.messages import PROTOCOL, ErrorBody

SAVE_SEEN_EVERY_S = 5.0
# Routes are tried one after the other: what a thousand clients ask in every round comes first.
API = (
    work_api, updates_api, models_api, clients_api, runs_api, events_api, curves_api, confusion_api, metrics_file_api,
    compare_api, predictions_api, settings_api,
)

log = structlog.get_logger(__name__)


def create_app(store: SqlStore, clock: Clock, settings: CentralSettings) -> FastAPI:
    """The app of one central node over its open store. Its runs play inside `living(app.state.node)`."""
    node = build_node(store, clock, settings)
    error: dict[str, Any] = {"model": ErrorBody, "description": "What is wrong, and what to do about it"}
    app = FastAPI(
        title="fednode central node", version=str(PROTOCOL), docs_url=None, redoc_url=None, openapi_url=None,
        responses={"4XX": error, "5XX": error},
    )
    app.state.node = node
    add_error_answers(app)
    for group in API:
        app.include_router(group.router)
    for page in PAGES:
        app.include_router(page)
    app.add_api_route("/healthz", _healthz, include_in_schema=True, tags=["health"])
    app.add_api_route("/openapi.json", app.openapi, include_in_schema=False, dependencies=[Operator])
    app.mount("/static", GZipMiddleware(whole_files(StaticFiles(directory=STATIC_DIR))))
    app.add_middleware(Gate, doors=node.doors, num_unwritten=store.num_unwritten)
    return app


def build_node(store: SqlStore, clock: Clock, settings: CentralSettings) -> CentralNode:
    """The parts, each made once. Raises StoreDamaged where the tokens cannot be read."""
    presence = Presence(clock, gone_after_s=settings.gone_after_s)
    leases = Leases(clock, lease_s=settings.lease_s)
    tokens = TokenFile(
        settings.state_dir, clock, is_loopback=settings.is_for_this_machine, is_new_token=settings.is_new_token
    )
    queries = Queries(store, clock)
    uploads = Uploads(store, clock, max_model_bytes=settings.max_model_bytes)
    return CentralNode(
        settings=settings, clock=clock, store=store, queries=queries, history=History(store),
        presence=presence, leases=leases, activity=Activity(clock),
        doors=Doors(
            store, presence, tokens, is_loopback=settings.is_loopback, public_url=settings.public_url
        ),
        runs=Runs(store, queries, presence, leases, uploads, clock), uploads=uploads,
        nonces=Nonces(clock), models=ModelBuffers(), predictions=Predictions(clock),
    )


@asynccontextmanager
async def living(node: CentralNode) -> AsyncIterator[None]:
    """Know who is enrolled, go on with the runs, keep house; at the end leave everything as a start would find it."""
    for record in await node.store.clients():
        if not record.is_revoked:
            node.presence.enrol(Member(name=record.name, offers=record.offers, last_seen_s=record.last_seen_s))
    await node.runs.start()
    away = await EventList(node.store).away()
    attendance = Attendance(node.store, node.presence, node.activity, node.clock, away)
    housekeeping = asyncio.create_task(_keep_house(node, attendance))
    try:
        yield
    finally:
        node.close_doors()
        housekeeping.cancel()
        await node.predictions.stop()
        await node.runs.stop()
        await _save_seen(node)


async def _keep_house(node: CentralNode, attendance: Attendance) -> None:
    """Count the up-time, tell who came and went, and save now and then who was seen when."""
    last_s = node.clock.now_s()
    while True:
        await node.clock.sleep(TICK_S)
        node.presence.uptime.now_s()
        await attendance.look()
        await node.predictions.stop_if_idle()
        if node.clock.now_s() - last_s >= SAVE_SEEN_EVERY_S:
            last_s = node.clock.now_s()
            await _save_seen(node)


async def _save_seen(node: CentralNode) -> None:
    """For people only: a disk that is full now may have room the next time."""
    if seen := node.presence.take_unsaved():
        with suppress(StoreError):
            await node.store.touch(seen)


async def _healthz() -> dict[str, Any]:
    """That this is a central node and that it answers. Open to everybody; says nothing else."""
    return {"status": "ok", "protocol": PROTOCOL}
