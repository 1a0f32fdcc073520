"""The stream of an open page: what changed, as HTML for the changed rows alone, at most four times a second.

Its id is the seq of the event that it has told up to; a browser that comes back names it, and hears what it missed from
the event table. `Tick` tells that we are there and what time it is. A page brings its own `News`: what events, and
clients that came, went or changed their step, mean for its rows.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from fednode.central.asked import Seq
from fednode.central.node import CentralNode, Node
from fednode.central.pages.frame import page_router
from fednode.central.waiting import first_of
from fednode.core.json import finite
from fednode.store.records import Event

TICK_S = 2.0                    # well within the 5 s after which a page says that we are gone
FRAME_S = 0.25
MAX_SEQ_DIGITS = 15
MAX_REPLAYED = 1_000            # events; who missed more loads the page anew

router = page_router()
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What goes to the page: rows to put in place, and signals for its scripts (name -> JSON)."""

    rows: Sequence[str] = ()
    signals: Mapping[str, Any] = field(default_factory=dict)


News: TypeAlias = Callable[[Sequence[Event], Collection[str]], Awaitable[Change]]


def in_place(element_id: str, html: str) -> str:
    """Puts `html` where the element of that id is; nothing where the page does not show it."""
    return f'<hx-partial hx-target="#{element_id}" hx-swap="outerMorph">{html}</hx-partial>'


def in_list(list_id: str, element_id: str, html: str) -> str:
    """The same, and at the head of the list where the page has no such row yet."""
    return if_absent(list_id, element_id, html, "afterbegin") + in_place(element_id, html)


def if_absent(list_id: str, element_id: str, html: str, where: str = "beforeend") -> str:
    """Only where the list has no such row yet: one that is there is left as the reader made it."""
    absent = f"#{list_id}:not(:has(#{element_id}))"
    return f'<hx-partial hx-target="{absent}" hx-swap="{where}">{html}</hx-partial>'


@router.get("/live")
async def pulse(request: Request, node: Node, after: Seq = 0) -> StreamingResponse:
    """For pages on which nothing changes by itself: only that we are there."""
    return stream(request, node, after, _nothing)


def stream(request: Request, node: CentralNode, after: int, news: News) -> StreamingResponse:
    """Everything that changes after event `after`, or after the event that the browser heard last."""
    heard = request.headers.get("last-event-id", "")
    seq = int(heard) if heard.isascii() and heard.isdecimal() and len(heard) <= MAX_SEQ_DIGITS else after
    return StreamingResponse(
        _frames(node, seq, news), media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _frames(node: CentralNode, seq: int, news: News) -> AsyncIterator[str]:
    version = node.activity.version
    yield _tick(node)
    while not node.closing.is_set():
        rung = node.activity.bell.listen()
        try:
            events = await node.queries.events(seq, MAX_REPLAYED)
            if len(events) == MAX_REPLAYED:
                yield _signal("reload", None)
                return
            newest, clients = node.activity.version, node.activity.since(version)
            told = _frame(events[-1].seq if events else seq, await news(events, clients)) if events or clients else ""
        except Exception as error:      # whatever a page makes of its news: it shows them at the next try
            log.error("page.broken", after=seq, error=repr(error), traceback=traceback.format_exc())
            await first_of(node.clock.sleep(TICK_S), node.closing.wait())
            yield _tick(node)
            continue
        seq, version = events[-1].seq if events else seq, newest
        if told:
            yield told
            await first_of(node.clock.sleep(FRAME_S), node.closing.wait())
            continue
        await first_of(node.store.wait_for_event(seq, TICK_S), rung.wait(), node.closing.wait())
        yield _tick(node)


async def _nothing(events: Sequence[Event], clients: Collection[str]) -> Change:
    return Change()


def _frame(seq: int, change: Change) -> str:
    """Signals first, rows last: the id of what was told goes with the last message."""
    signals = "".join(_signal(name, value) for name, value in change.signals.items())
    text = "".join(change.rows).replace("\r", "")
    lines = "".join(f"data: {line}\n" for line in text.split("\n")) if text else ""
    return f"{signals}id: {seq}\n{lines}\n"


def _signal(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(finite(value), separators=(',', ':'))}\n\n"


def _tick(node: CentralNode) -> str:
    return _signal("tick", {"now_s": node.clock.wall_s()})
