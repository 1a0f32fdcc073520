"""Clients: who belongs to the federation, found among a thousand; and how one more is added."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fednode.central.addresses import local_url
from fednode.central.asked import PageNumber, Seq
from fednode.central.client_facts import SORTS, ClientQuery, FoundClients, client_rows, find_clients
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import fragment, newest_seq, page_router, render
from fednode.central.pages.lists import PAGE_ROWS, Paging, address
from fednode.central.pages.live import Change, in_list, in_place, stream
from fednode.store.records import Event

HEADS = {"name": "Name", "status": "Status", "seen": "Last seen", "updates": "Updates"}

router = page_router()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the address says: which clients, and which page of them."""

    query: ClientQuery
    page: int = 1

    def at(self, path: str, **changes: Any) -> str:
        """The address of the same choice with `changes`; another choice begins at its first page."""
        parts = {**asdict(self.query), "page": self.page if path != "/clients" else 1, **changes}
        return address(path, **{**parts, "sort": "" if parts["sort"] == "name" else parts["sort"]})

    def sorted_by(self, sort: str) -> str:
        """The address of the list in that order; where it has it already, backwards."""
        return self.at("/clients", sort=f"-{sort}" if self.query.sort == sort else sort)

    def direction(self, sort: str) -> str:
        """For `aria-sort`; "" where the list is in another order."""
        return {sort: "ascending", f"-{sort}": "descending"}.get(self.query.sort, "")


def choice_of(search: str = "", status: str = "", task: str = "", sort: str = "name", page: PageNumber = 1) -> Choice:
    """From the query of an address, where somebody may have written anything."""
    known = sort if sort.removeprefix("-") in SORTS else "name"
    return Choice(query=ClientQuery(search=search, status=status, task=task, sort=known), page=page)


@router.get("/clients")
async def clients(
    request: Request, node: Node, search: str = "", status: str = "", task: str = "", sort: str = "name",
    page: PageNumber = 1,
) -> Response:
    """The list; all that was chosen is in the address."""
    seq, choice = await newest_seq(node), choice_of(search, status, task, sort, page)
    found = await find_clients(node, choice.query)
    paging = Paging(asked=page, num_rows=len(found.names))
    choice = replace(choice, page=paging.page)
    rows = await client_rows(node, found.names[paging.offset :][:PAGE_ROWS])
    return await render(
        request, "clients.html", **_counted(found, choice), clients=rows, detailed=True, heads=HEADS, paging=paging,
        to_page=lambda number: choice.at("/clients", page=number), joining=joining(request, node), seq=seq,
        live=choice.at("/live/clients"),
    )


@router.get("/live/clients")
async def changes(
    request: Request, node: Node, after: Seq = 0, search: str = "", status: str = "", task: str = "",
    sort: str = "name", page: PageNumber = 1,
) -> StreamingResponse:
    """Rows that changed, of the clients that were shown when the page was opened; new ones join its head."""
    choice = choice_of(search, status, task, sort, page)
    shown = set(_page_of(await find_clients(node, choice.query), choice))

    async def news(events: Sequence[Event], turned: Collection[str]) -> Change:
        touched = {*turned, *_named(events)}
        if not touched:
            return Change()
        found = await find_clients(node, choice.query)
        joined = {name for name in touched & set(found.names) if page <= 1} - shown
        shown.update(joined)
        rows = await client_rows(node, sorted(touched & shown))
        return Change(rows=[
            in_place("clients-chips", fragment("clients_chips.html", **_counted(found, choice))),
            *(_row(client, joins=client["name"] in joined) for client in rows),
        ])

    return stream(request, node, after, news)


def joining(request: Request, node: CentralNode) -> dict[str, Any]:
    """What the box "Add a client" says."""
    settings, tokens = node.settings, node.doors.tokens
    url, expires_s = node.base_url(request), tokens.join_expires_s
    return {
        "url": url, "local_url": local_url(settings.scheme, settings.host, request.scope["server"][1]),
        "token": tokens.join_token, "expires_s": expires_s,
        "has_expired": expires_s is not None and node.clock.wall_s() > expires_s,
        "is_for_this_machine": settings.is_for_this_machine, "is_clear": url.startswith("http://"),
        "has_certificate": settings.certificate is not None,
    }


def _counted(found: FoundClients, choice: Choice) -> dict[str, Any]:
    return {"counts": found.counts, "num_clients": sum(found.counts.values()), "tasks": found.tasks, "choice": choice}


def _page_of(found: FoundClients, choice: Choice) -> list[str]:
    return found.names[Paging(asked=choice.page, num_rows=len(found.names)).offset :][:PAGE_ROWS]


def _named(events: Sequence[Event]) -> set[str]:
    """The clients whose row an event may change: who joined, left, brought an update."""
    return {str(event.fields["client"]) for event in events if "client" in event.fields}


def _row(client: Mapping[str, Any], *, joins: bool) -> str:
    element_id = f"client-{client['client_id']}"
    row = fragment("clients_row.html", client=client, detailed=True)
    return in_list("clients", element_id, row) if joins else in_place(element_id, row)
