"""A thousand clients as a list: of each as much as finding and sorting need. What the shown ones offer is read apart.

Offers carry schemas of several kB: to parse those of everybody for each look at the list would be the most of its cost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from fednode.store import clients
from fednode.store.records import ClientRecord
from fednode.store.schema import client, update
from fednode.store.sql import SqlStore


@dataclass(frozen=True, kw_only=True)
class ListedClient:
    """A client without its offers."""

    name: str
    is_revoked: bool
    last_seen_s: float          # wall seconds, as last saved


class ClientList:
    """The reading side of the clients' rows, for lists."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def all(self) -> list[ListedClient]:
        """In name order."""
        return await self._store.read(_listed)

    async def records(self, names: Collection[str]) -> dict[str, ClientRecord]:
        """These clients whole, by name."""
        wanted = select(client).where(client.c.name.in_(names))
        return await self._store.read(lambda c: {row.name: clients.client_from(row) for row in c.execute(wanted)})

    async def num_updates(self, names: Collection[str] | None = None) -> dict[str, int]:
        """How many updates each has brought; who brought none is not there. None: of all clients."""
        counted = select(update.c.client, func.count()).group_by(update.c.client)
        wanted = counted if names is None else counted.where(update.c.client.in_(names))
        return await self._store.read(lambda c: {row[0]: row[1] for row in c.execute(wanted)})


def _listed(c: Connection) -> list[ListedClient]:
    found = c.execute(select(client.c.name, client.c.is_revoked, client.c.last_seen_s))
    listed = [ListedClient(name=row.name, is_revoked=row.is_revoked, last_seen_s=row.last_seen_s) for row in found]
    return sorted(listed, key=lambda one: one.name.encode())
