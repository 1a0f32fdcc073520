"""The client's own page without a browser: what it answers where a decision cannot be written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from client_scenes import Heard

from fednode.client.approvals import Approvals, Code
from fednode.client.ledger import Ledger
from fednode.client.page import Page
from fednode.client.sharing import Sharing
from fednode.client.snapshot import Transcript, Watcher
from fednode.clock import HandClock

KEY = "0" * 64


async def post(page: Page, path: str) -> list[dict[str, Any]]:
    """The parts of the answer, as they are sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost:5001")], "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5001),
    }
    await page.app()(scope, receive, send)
    return sent


@pytest.mark.parametrize(("path", "in_the_way"), [
    ("/pause", "sharing.json.tmp"), (f"/approve/{KEY}", f"approvals/{KEY}.json.tmp"),
])
async def test_what_could_not_be_written_down_is_told_once_and_with_a_fix(
    tmp_path: Path, path: str, in_the_way: str
) -> None:
    clock, approvals = HandClock(), Approvals(tmp_path, HandClock())
    approvals.ask([Code(key=KEY, task="digits", fingerprint="digits@1", spec="digits")])
    page = Page(
        watcher=Watcher("a", "http://localhost:5000", Heard(), clock), transcript=Transcript(clock), clock=clock,
        ledger=Ledger(tmp_path, clock), sharing=Sharing(tmp_path, clock), approvals=approvals,
    )
    (tmp_path / in_the_way).mkdir()         # no file can be made of this name
    start, body = await post(page, path)
    assert start["status"] == 500
    assert json.loads(body["body"])["code"] == "store_error"
    (tmp_path / in_the_way).rmdir()
    assert (await post(page, path))[0]["status"] == 303


async def test_where_nothing_is_approved_by_hand_nothing_can_be(tmp_path: Path) -> None:
    clock = HandClock()
    page = Page(
        watcher=Watcher("a", "http://localhost:5000", Heard(), clock), transcript=Transcript(clock), clock=clock,
        ledger=Ledger(tmp_path, clock), sharing=Sharing(tmp_path, clock),
    )
    start, body = await post(page, f"/approve/{KEY}")
    assert (start["status"], json.loads(body["body"])["code"]) == (404, "not_found")
