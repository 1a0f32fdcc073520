"""One central node as an object: its settings, and the parts that its API files share. Made in `app`, read by all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from fednode.central.activity import Activity
from fednode.central.addresses import lan_url
from fednode.central.auth import Doors
from fednode.central.certificate import Certificate
from fednode.central.leases import Leases
from fednode.central.models import ModelBuffers
from fednode.central.nonces import Nonces
from fednode.central.predictions import Predictions
from fednode.central.presence import Presence
from fednode.central.runs import Runs
from fednode.central.uploads import Uploads
from fednode.ports import Clock
from fednode.store.history import History
from fednode.store.queries import Queries
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore
from fednode.web.callers import is_loopback_host
from fednode.web.connections import Limits

GIBIBYTE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class CentralSettings:
    """What a central node is told at its start."""

    state_dir: Path                         # what must not be lost
    user_state_dir: Path                    # where clients and CLI of the same user look for `centrals/<port>.json`
    database: str = field(default="", repr=False)   # URL of its rows, where they are not in the state dir; a secret
    host: str = "127.0.0.1"
    port: int = 5000                        # 0: one that is free
    is_new_token: bool = False              # the old join token admits nobody any more
    is_insecure: bool = False               # a clear bind beyond loopback is wanted
    certificate: Certificate | None = None  # with it everything is https
    public_url: str = ""                    # what a proxy in front makes of it, and what pages and commands then show
    lease_s: float = 60.0
    gone_after_s: float = 60.0
    max_model_bytes: int = 2 * GIBIBYTE     # of a run's initial params; later updates are measured by these
    limits: Limits = field(default_factory=Limits)      # of its connections

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect: others then come through a proxy, if at all."""
        return is_loopback_host(self.host)

    @property
    def is_for_this_machine(self) -> bool:
        """Whether nobody else is meant to come: then its own programs and pages need no token."""
        return self.is_loopback and not self.public_url

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"

    @property
    def is_encrypted(self) -> bool:
        """Whether a browser comes by https, here or at the proxy."""
        return self.scheme == "https" or self.public_url.startswith("https://")


@dataclass(frozen=True, kw_only=True)
class CentralNode:
    """The parts of one central node."""

    settings: CentralSettings
    clock: Clock
    store: SqlStore
    queries: Queries
    history: History
    presence: Presence
    leases: Leases
    activity: Activity
    doors: Doors
    nonces: Nonces
    runs: Runs
    uploads: Uploads
    models: ModelBuffers
    predictions: Predictions
    closing: asyncio.Event = field(default_factory=asyncio.Event)      # set: long-polls answer at once

    def base_url(self, connection: HTTPConnection) -> str:
        """The address to show to whoever asks, so that it works from other machines too where it can."""
        asked = connection.headers.get("host", "")
        if self.settings.public_url:
            return self.settings.public_url
        if self.settings.is_loopback or not is_loopback_host(asked):
            return f"{self.settings.scheme}://{asked}"
        _, port = connection.scope["server"]        # not the Host's: a tunnel may end at another one
        return lan_url(self.settings.host, port, self.settings.certificate)

    def close_doors(self) -> None:
        """The process is about to end: nobody waits any longer."""
        self.closing.set()
        self.leases.wake_all()


def node_of(request: Request) -> CentralNode:
    node: CentralNode = request.app.state.node
    return node


async def _node(request: Request) -> CentralNode:
    """As a coroutine: FastAPI takes any other function to a thread, for every request."""
    return node_of(request)


Node = Annotated[CentralNode, Depends(_node)]


async def client_of(request: Request) -> ClientRecord:
    """The client that calls, by its secret. Raises NotAuthorised."""
    return await node_of(request).doors.client_of(request)


async def operator_of(request: Request) -> None:
    """Raises NotAuthorised unless the caller may operate this central node."""
    node_of(request).doors.require_operator(request)


Client = Annotated[ClientRecord, Depends(client_of)]
Operator = Depends(operator_of)
