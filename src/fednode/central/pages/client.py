"""Client: is it there, what does it offer, what did it do; and the buttons that shut it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from fednode.central import clients_api
from fednode.central.asked import Seq
from fednode.central.client_facts import client_rows
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import SEE_OTHER, fragment, newest_seq, page_router, render
from fednode.central.pages.live import Change, in_place, stream
from fednode.core.data_summary import DataSummary
from fednode.core.ids import key_fingerprint
from fednode.store.client_history import ClientHistory, Measured, Work
from fednode.store.records import ClientRecord, Event

NUM_MEASURED = 60               # of the models of its last run: what a small line can show
WIDE, HIGH = 300, 60            # of that line, in units of its own

router = page_router()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of the models that the client measured in its last run, oldest first."""

    name: str
    rounds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def points(self) -> str:
        """For an SVG polyline: from the lowest value to the highest."""
        low, high = min(self.values), max(self.values)
        step, span = WIDE / max(1, len(self.values) - 1), (high - low) or 1.0
        return " ".join(
            f"{index * step:.1f},{HIGH - 4 - (value - low) / span * (HIGH - 8):.1f}"
            for index, value in enumerate(self.values)
        )

    @property
    def told(self) -> str:
        return f"{self.name} from {self.values[0]:.4f} to {self.values[-1]:.4f} over {len(self.values)} models"


@router.get("/clients/{name}")
async def client(request: Request, name: str, node: Node) -> Response:
    """The page."""
    seq, record = await newest_seq(node), await node.store.client(name)
    return await render(
        request, "client.html", **await _facts(node, record), record=record, seq=seq,
        key_fingerprint=key_fingerprint(record.public_key),
        offers=[(offer, DataSummary.of(offer)) for offer in record.offers], live=f"/live/clients/{record.name}",
    )


@router.get("/live/clients/{name}")
async def changes(request: Request, name: str, node: Node, after: Seq = 0) -> StreamingResponse:
    """What changes on it: all that stands above the offers."""
    record = await node.store.client(name)

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        if record.name not in clients and not any(_names(event, record.name) for event in events):
            return Change()
        facts = await _facts(node, record)
        parts = ("client_head", "client_scores", "client_history")
        return Change(rows=[in_place(part.replace("_", "-"), fragment(f"{part}.html", **facts)) for part in parts])

    return stream(request, node, after, news)


@router.post("/clients/{name}/{verb}")
async def act(name: str, verb: Literal["revoke", "rotate"], node: Node) -> Response:
    """A button of the page."""
    await getattr(clients_api, verb)(name, node)
    return RedirectResponse(f"/clients/{name}", SEE_OTHER)


async def _facts(node: CentralNode, record: ClientRecord) -> dict[str, Any]:
    [row] = await client_rows(node, [record.name])
    history = ClientHistory(node.store)
    works = await history.works(record.name)
    last = next((work for work in works), None)
    measured = await history.measured(record.name, last.run_id, NUM_MEASURED) if last else []
    return {"client": row, "works": works, "last": last, "lines": lines_of(measured), "doing": _doing(row, works)}


def lines_of(measured: Sequence[Measured]) -> list[Line]:
    """One line a metric. A value that is no number ends up in no line."""
    found: dict[str, list[tuple[int, float]]] = {}
    for one in reversed(measured):
        for name, value in one.values.items():
            found.setdefault(name, []).append((one.model_round, value))
    return [
        Line(name=name, rounds=tuple(at for at, _ in pairs), values=tuple(value for _, value in pairs))
        for name, pairs in found.items()
    ]


def _doing(row: Mapping[str, Any], works: Sequence[Work]) -> dict[str, Any] | None:
    """What it is at, with the number of the run as people call it."""
    doing = row["doing"] if row["status"] == "busy" else None
    number = next((work.run_number for work in works if doing and work.run_id == doing["run_id"]), None)
    return {**doing, "run_number": number} if doing and number is not None else None


def _names(event: Event, name: str) -> bool:
    fields = event.fields
    listed = (fields.get("cohort"), fields.get("clients"))
    is_of_cohort = any(isinstance(names, list) and name in names for names in listed)
    return fields.get("client") == name or is_of_cohort or event.what in ("round closed", "round committed")
