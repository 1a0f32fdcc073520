"""Clients as lists, pages and programs are told of them; and how one is found among a thousand.

Whether a client is there is known in memory, what it did is in the store: here they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fednode.central.node import CentralNode
from fednode.core.status import ClientStatus
from fednode.store.client_list import ClientList, ListedClient
from fednode.store.records import ClientRecord

SORTS = ("name", "status", "seen", "updates")
_PRESENCE = (ClientStatus.BUSY, ClientStatus.ONLINE, ClientStatus.GONE, ClientStatus.REVOKED)


@dataclass(frozen=True, kw_only=True)
class ClientQuery:
    """Which clients are asked for, and in which order; what is empty does not narrow."""

    search: str = ""                # part of the name
    status: str = ""
    task: str = ""                  # offered by it now
    sort: str = "name"              # one of SORTS; with "-" before it: the other way round


@dataclass(frozen=True, kw_only=True)
class FoundClients:
    """Who was found, in order, and how many of each status there would be without `status`."""

    names: list[str]
    counts: dict[str, int]
    tasks: list[str]                # that anybody offers


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """What finding and sorting look at."""

    name: str
    status: ClientStatus
    last_seen_s: float
    num_updates: int


async def find_clients(node: CentralNode, query: ClientQuery) -> FoundClients:
    """A sort that is none of ours is by name."""
    tasks = {member.name: {offer.task for offer in member.offers} for member in node.presence.members()}
    reader = ClientList(node.store)
    updates = await reader.num_updates() if query.sort.lstrip("-") == "updates" else {}
    found = [
        _candidate(node, listed, updates.get(listed.name, 0)) for listed in await reader.all()
        if _matches(listed.name, tasks.get(listed.name, set()), query)
    ]
    counts = {status.value: sum(one.status is status for one in found) for status in _PRESENCE}
    chosen = [one for one in found if query.status in ("", one.status.value)]
    chosen.sort(key=_KEYS.get(query.sort.lstrip("-"), _by_name), reverse=query.sort.startswith("-"))
    return FoundClients(
        names=[one.name for one in chosen], counts=counts, tasks=sorted({task for of in tasks.values() for task in of})
    )


async def client_rows(node: CentralNode, names: Sequence[str]) -> list[dict[str, Any]]:
    """These clients in this order. Whom nobody knows any more is left out."""
    reader = ClientList(node.store)
    records, updates = await reader.records(names), await reader.num_updates(names)
    return [
        {**client_row(node, records[name]), "num_updates": updates.get(name, 0)} for name in names if name in records
    ]


def client_row(node: CentralNode, record: ClientRecord) -> dict[str, Any]:
    """A client as lists and pages show it."""
    last_seen_s = max(record.last_seen_s, node.presence.last_seen_s(record.name))
    doing = node.activity.of(record.name)
    return {
        "client_id": record.id, "name": record.name,
        "status": _status(node, record.name, is_revoked=record.is_revoked).value,
        "reason": node.presence.farewell(record.name), "doing": asdict(doing) if doing else None,
        "last_seen_s": last_seen_s, "unheard_s": max(0.0, node.clock.wall_s() - last_seen_s),
        "joined_s": record.joined_s, "versions": dict(record.versions),
        "offers": [
            {"task": offer.task, "fingerprint": offer.fingerprint, "summary": offer.summary,
             "limits": offer.limits.to_json()} for offer in record.offers
        ],
    }


def _status(node: CentralNode, name: str, *, is_revoked: bool) -> ClientStatus:
    if is_revoked:
        return ClientStatus.REVOKED
    if not node.presence.is_heard(name):
        return ClientStatus.GONE
    return ClientStatus.BUSY if node.leases.is_busy(name) else ClientStatus.ONLINE


def _candidate(node: CentralNode, listed: ListedClient, num_updates: int) -> _Candidate:
    return _Candidate(
        name=listed.name, status=_status(node, listed.name, is_revoked=listed.is_revoked), num_updates=num_updates,
        last_seen_s=max(listed.last_seen_s, node.presence.last_seen_s(listed.name)),
    )


def _matches(name: str, tasks: set[str], query: ClientQuery) -> bool:
    return query.search.strip().lower() in name and (not query.task or query.task in tasks)


def _by_name(one: _Candidate) -> tuple[Any, ...]:
    return (one.name.encode(),)


_KEYS: dict[str, Callable[[_Candidate], tuple[Any, ...]]] = {
    "name": _by_name,
    "status": lambda one: (_PRESENCE.index(one.status), one.name.encode()),
    "seen": lambda one: (-one.last_seen_s, one.name.encode()),
    "updates": lambda one: (-one.num_updates, one.name.encode()),
    # For lists that are cut off and live: who works and who rests in between must not change places all the time.
    "there": lambda one: (one.status not in (ClientStatus.BUSY, ClientStatus.ONLINE), one.name.encode()),
}
