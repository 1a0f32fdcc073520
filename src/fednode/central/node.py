"""One central node as an object: its settings, and the parts that its API files share. Made in `app`, read by all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from fednode.central.auth import Doors
from fednode.central.leases import Leases
from fednode.central.models import ModelBuffers
from fednode.central.presence import Presence
from fednode.central.runs import Runs
from fednode.central.uploads import Uploads
from fednode.ports import Clock
from fednode.store.queries import Queries
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore

GIBIBYTE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class CentralSettings:
    """What a central node is told at its start."""

    state_dir: Path                         # what must not be lost
    user_state_dir: Path                    # where clients and CLI of the same user look for `centrals/<port>.json`
    host: str = "127.0.0.1"
    port: int = 5000                        # 0: one that is free
    is_new_token: bool = False              # the old join token admits nobody any more
    is_insecure: bool = False               # a clear bind beyond loopback is wanted
    lease_s: float = 60.0
    gone_after_s: float = 60.0
    max_model_bytes: int = 2 * GIBIBYTE     # of a run's initial params; later updates are measured by these


@dataclass(frozen=True, kw_only=True)
class CentralNode:
    """The parts of one central node."""

    settings: CentralSettings
    clock: Clock
    store: SqlStore
    queries: Queries
    presence: Presence
    leases: Leases
    doors: Doors
    runs: Runs
    uploads: Uploads
    models: ModelBuffers
    closing: asyncio.Event = field(default_factory=asyncio.Event)      # set: long-polls answer at once

    def close_doors(self) -> None:
        """The process is about to end: nobody waits any longer."""
        self.closing.set()


def node_of(request: Request) -> CentralNode:
    node: CentralNode = request.app.state.node
    return node


Node = Annotated[CentralNode, Depends(node_of)]


async def client_of(request: Request, node: Node) -> ClientRecord:
    """The client that calls, by its secret. Raises NotAuthorised."""
    return await node.doors.client_of(request)


def operator_of(request: Request, node: Node) -> None:
    """Raises NotAuthorised unless the caller may operate this central node."""
    node.doors.require_operator(request)


Client = Annotated[ClientRecord, Depends(client_of)]
Operator = Depends(operator_of)
