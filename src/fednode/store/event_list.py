"""Events for people, newest first: a page of a kind, of a run, of a client. And who is known to be away."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from fednode.store.records import Event
from fednode.store.schema import event, run
from fednode.store.sql import SqlStore

GONE, BACK = "client gone", "client back"
MAX_LOOKED_AT = 5_000           # newest comings and goings that tell who is away


@dataclass(frozen=True, kw_only=True)
class EventQuery:
    """Which events are asked for; what is empty does not narrow."""

    whats: Collection[str] = ()
    run_id: str = ""
    client: str = ""                # the event names it
    before: int = 0                 # seq: older ones only


@dataclass(frozen=True, kw_only=True)
class ListedEvent:
    """An event, and the number of the run that it is about."""

    event: Event
    run_number: int | None


class EventList:
    """The reading side of events, for lists."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def newest(self, query: EventQuery, limit: int) -> list[ListedEvent]:
        wanted = _narrowed(select(event, run.c.number.label("run_number")), query)
        wanted = wanted.join(run, run.c.id == event.c.run_id, isouter=True).order_by(event.c.seq.desc()).limit(limit)
        return await self._store.read(lambda c: [_listed(row) for row in c.execute(wanted)])

    async def away(self) -> dict[str, float]:
        """Who was last heard to be gone, and since when (wall seconds)."""
        return await self._store.read(_away)


def is_of(found: Event, query: EventQuery) -> bool:
    """Whether the query asks for this event: the rule of `newest`, for one that has just happened."""
    return (
        (not query.whats or found.what in query.whats)
        and query.run_id in ("", found.run_id)
        and (not query.client or json.dumps(query.client) in json.dumps(found.fields))
    )


def _narrowed(wanted: Select[Any], query: EventQuery) -> Select[Any]:
    if query.whats:
        wanted = wanted.where(event.c.what.in_(query.whats))
    if query.run_id:
        wanted = wanted.where(event.c.run_id == query.run_id)
    if query.client:                # as JSON writes it: between quotes, wherever that is
        wanted = wanted.where(event.c.fields.contains(json.dumps(query.client), autoescape=True))
    return wanted.where(event.c.seq < query.before) if query.before else wanted


def _listed(row: Any) -> ListedEvent:
    found = Event(seq=row.seq, wall_s=row.wall_s, what=row.what, run_id=row.run_id, fields=json.loads(row.fields))
    return ListedEvent(event=found, run_number=row.run_number)


def _away(c: Connection) -> dict[str, float]:
    newest = select(event).where(event.c.what.in_((GONE, BACK))).order_by(event.c.seq.desc()).limit(MAX_LOOKED_AT)
    found: dict[str, float] = {}
    for row in reversed(c.execute(newest).all()):
        for name in json.loads(row.fields)["clients"]:
            if row.what == GONE:
                found[name] = row.wall_s
            else:
                found.pop(name, None)
    return found
