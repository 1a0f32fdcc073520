"""Connections that stall, and too many of them: each ends by itself, and nobody honest notices. Real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from central_scene import TIMEOUT_S, Central, announcement, at_work, body_of, central
from starlette.requests import HTTPConnection

from certificates import make_certificate
from fednode.central import gate, room
from fednode.central.answers import problem_of
from fednode.central.certificate import load_certificate
from fednode.clock import SystemClock
from fednode.core.params import Params
from fednode.errors import StoreFull
from fednode.web.connections import Limits
from fednode.wire.codec import encode
from fednode.wire.http import Http, with_retries
from fednode.wire.messages import Announcement

SHORT = Limits(headers_s=0.5, body_s=0.5, answer_s=0.5, idle_s=0.5, linger_s=0.2)
DRIP_S = 0.05
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
BEGUN = b"POST /api/v1/runs HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000\r\n\r\n{"


class Line:
    """One bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, what: bytes) -> None:
        self.writer.write(what)
        with suppress(OSError):
            await self.writer.drain()

    async def drip(self, what: bytes) -> None:
        """One byte at a time, for ever, or until the other side has had enough."""
        with suppress(OSError):
            while not self.reader.at_eof():
                for byte in what:
                    self.writer.write(bytes([byte]))
                    await self.writer.drain()
                    await asyncio.sleep(DRIP_S)

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await self.reader.read()
            except OSError:
                return b""

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body


@asynccontextmanager
async def line_to(fed: Central, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", fed.serving.port, ssl=tls)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def is_408(heard: bytes) -> bool:
    head, _, body = heard.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 408 ") and set(json.loads(body)) == {"code", "message", "fix"}


# --- one that stalls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tls", [False, True])
async def test_who_stalls_is_told_so_and_cut(tmp_path: Path, is_tls: bool) -> None:
    settings: dict[str, Any] = {"limits": SHORT}
    tls = None
    if is_tls:
        cert, key = make_certificate(tmp_path, "localhost", "127.0.0.1")
        settings["certificate"] = load_certificate(cert, key, SystemClock().wall_s())
        tls = ssl.create_default_context(cafile=str(cert))
    async with central(tmp_path, **settings) as fed:
        for begun in (b"GET /heal", b"GET /healthz HTTP/1.1\r\nX-A: ", BEGUN):
            async with line_to(fed, tls) as line:
                await line.say(begun)
                assert is_408(await line.rest()), begun
        for silent in (b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            async with line_to(fed, tls) as line:
                await line.say(silent)
                heard = await line.rest()
                assert heard == b"" or heard.startswith(b"HTTP/1.1 200 "), (silent, heard)


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /healthz HTTP/1.1\r\nX-A: ",
        BEGUN,
        b"POST /api/v1/runs HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nX-A: ",
    ],
    ids=["a header", "a body", "a chunk's extension", "a second request"],
)
async def test_one_byte_now_and_then_is_no_progress(tmp_path: Path, begun: bytes) -> None:
    async with central(tmp_path, limits=SHORT) as fed, line_to(fed) as line:
        await line.say(begun)
        dripping = asyncio.create_task(line.drip(b"a"))
        heard = await line.rest()
        dripping.cancel()
        assert is_408(heard[heard.rfind(b"HTTP/1.1 ") :]), heard


async def test_empty_lines_between_requests_keep_nothing_open(tmp_path: Path) -> None:
    async with central(tmp_path, limits=SHORT) as fed, line_to(fed) as line:
        await line.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        dripping = asyncio.create_task(line.drip(b"\r\n"))
        assert (await line.rest()).startswith(b"HTTP/1.1 200 ")
        dripping.cancel()


async def test_what_is_left_of_a_refused_body_is_not_waited_for(tmp_path: Path) -> None:
    async with central(tmp_path, limits=SHORT) as fed, line_to(fed) as line:
        await line.say(BEGUN.replace(b"100000", b"9999999"))
        status, _, _ = await line.answer()
        assert status == 413
        dripping = asyncio.create_task(line.drip(b"a" * 1_000))
        assert await line.rest() == b""
        dripping.cancel()


# --- who waits, or is slow, and is honest ------------------------------------------------------------


async def test_a_poll_and_a_stream_may_be_silent_for_longer_than_any_limit(tmp_path: Path) -> None:
    async with central(tmp_path, limits=SHORT) as fed, line_to(fed) as line:
        client = await fed.client("a")
        polling = asyncio.create_task(client.poll(wait=3 * SHORT.body_s))
        await line.say(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        async with asyncio.timeout(TIMEOUT_S):
            while heard.count(b"event: tick") < 2:  # 2 s between two of them
                heard += await line.reader.read(10_000)
                assert not line.reader.at_eof(), heard
        assert await polling == {"assignment": None, "withdrawn": False}


async def test_a_slow_line_that_makes_progress_brings_its_update(tmp_path: Path) -> None:
    async with central(tmp_path, limits=Limits(body_s=1.0)) as fed:
        client = await fed.client("a")
        await fed.start_run(min_updates=1)
        assignment, body = await client.work(), encode(Params({"w": np.zeros(10_000, np.float32)}))
        await client.announce(assignment, body)
        async with line_to(fed) as line:
            await line.say(_put(assignment["id"], client.secret, len(body)))
            for start in range(0, len(body), 1_500):  # 27 pieces: nearly three times the limit
                await line.say(body[start : start + 1_500])
                await asyncio.sleep(0.1)
            status, _, told = await line.answer()
        assert (status, json.loads(told)["is_complete"]) == (200, True)


async def test_an_upload_that_stalls_goes_on_from_its_offset(tmp_path: Path) -> None:
    async with central(tmp_path, limits=SHORT) as fed:
        client = await fed.client("a")
        await fed.start_run(min_updates=1)
        assignment, body = await client.work(), encode(Params({"w": np.zeros(10_000, np.float32)}))
        await client.announce(assignment, body)
        async with line_to(fed) as line:
            await line.say(_put(assignment["id"], client.secret, len(body))
                + body[:15_000])
            assert is_408(await line.rest())
        assert await client.offset(assignment) == 15_000
        assert (await client.put(assignment, body, offset=15_000)).json()["is_complete"]


async def test_nonsense_behind_a_request_does_not_spoil_its_answer(tmp_path: Path) -> None:
    async with central(tmp_path) as fed, line_to(fed) as line:
        client = await fed.client("a")
        ask = (
            f"GET /api/v1/clients/me/work?wait=0.5 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.secret}"
        )
        await line.say(f"{ask}\r\n\r\n".encode() + b"\x16\x03\x01 nonsense\r\n\r\n")
        status, headers, body = await line.answer()
        assert (status, json.loads(body)["withdrawn"]) == (200, False)
        assert headers["connection"] == "close"
        assert await line.rest() == b""


# --- many ---------------------------------------------------------------------------------------------


async def test_two_hundred_slow_connections_hurt_nobody(tmp_path: Path) -> None:
    """Silent, dripping headers, dripping bodies, taking no answer: 50 each. A run is played meanwhile."""
    large = encode(Params({"w": np.zeros(2_500_000, np.float32)}))  # 10 MB: more than the system's own buffers
    async with central(tmp_path, limits=SHORT) as fed, AsyncExitStack() as stack:
        giver = await fed.client("giver")
        await fed.start_run(min_updates=1, rounds=1, clients=["giver"])
        await giver.bring(await giver.work(), large)
        sha256 = await _model(fed)
        lines = [await stack.enter_async_context(line_to(fed)) for _ in range(200)]
        attacks = [_attack(line, number, sha256) for number, line in enumerate(lines)]
        dripping = [asyncio.create_task(attack) for attack in attacks]
        honest = [await fed.client("a"), await fed.client("b")]
        async with at_work(*honest):
            run = await fed.start_run(clients=["a", "b"])
            assert (await fed.until(run["run_id"], "completed", "failed"))["status"] == "completed"
        await asyncio.sleep(4 * SHORT.answer_s)     # its timers are in this event loop: by then they have struck
        assert all([await _is_cut(line, number) for number, line in enumerate(lines)])
        for task in dripping:
            task.cancel()


async def _model(fed: Central) -> str:
    """Of the one that was made."""
    after = 0
    async with asyncio.timeout(TIMEOUT_S):
        while not (found := (await fed.people.get("/api/v1/models")).json()):
            news = await fed.people.get("/api/v1/events", params={"after": after, "wait": 5})
            after = news.json()["next"]
    return str(found[0]["sha256"])


async def _attack(line: Line, number: int, model: str) -> None:
    if number % 4 == 1:
        await line.say(b"GET /healthz HTTP/1.1\r\nX-A: ")
        await line.drip(b"a")
    elif number % 4 == 2:
        await line.say(BEGUN)
        await line.drip(b" ")
    elif number % 4 == 3:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await line.say(f"GET /api/v1/models/{model}/params HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


async def _is_cut(line: Line, number: int) -> bool:
    """Whether the central node has ended it: what it did not take it will never see whole."""
    if number % 4 == 3:
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        return len(await line.rest()) < 10_000_000
    await line.rest()
    return True


async def test_where_all_room_is_taken_the_longest_silent_one_makes_some(tmp_path: Path) -> None:
    async with central(tmp_path, limits=Limits(max_connections=20)) as fed, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line_to(fed)) for _ in range(40)]
        assert (await fed.people.get("/healthz")).status_code == 200
        assert await lines[0].rest() == b""
        await lines[-1].say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await lines[-1].answer())[0] == 200


async def test_where_nobody_can_be_sent_away_a_client_is_asked_to_wait_and_does(tmp_path: Path) -> None:
    limits = Limits(max_connections=20, body_s=1.0)
    async with central(tmp_path, limits=limits) as fed, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line_to(fed)) for _ in range(20)]
        for line in lines:
            await line.say(BEGUN)
        async with line_to(fed) as one_more:
            status, headers, body = await one_more.answer()
        assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "busy")
        waits: list[float] = []
        async with Http(fed.serving.url) as http:
            ask = with_retries(http.request, on_wait=lambda _, wait_s: waits.append(wait_s))
            assert (await ask("GET", "/healthz"))["status"] == "ok"
        assert waits
        assert waits[0] >= 1.0  # as it was asked to


async def test_updates_beyond_those_that_arrive_are_asked_to_wait_and_come_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_UPDATES", 1)
    monkeypatch.setattr(room, "MAX_IN_LINE_S", 0.1)
    monkeypatch.setattr(room, "KEPT_S", 60.0)
    body = encode(Params({"w": np.zeros(10_000, np.float32)}))
    path = tmp_path / "update"
    path.write_bytes(body)
    async with central(tmp_path) as fed, line_to(fed) as line:
        slow, other = await fed.client("a"), await fed.client("b")
        for client in (slow, other):
            await fed.start_run(min_updates=1, clients=[client.name])
        held, assignment = await slow.work(), await other.work()
        assert (await slow.announce(held, body)).status_code == 200     # the one place is its own from now on
        refused = await other.announce(assignment, body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        await line.say(_put(held["id"], slow.secret, len(body)) + body[:1_000])
        assert (await slow.poll(holding=held["id"], wait=0))["withdrawn"] is False     # so ours has been read by now
        assert (await other.announce(assignment, body)).status_code == 503
        assert (await other.put(assignment, body)).status_code == 503
        update = f"/api/v1/assignments/{assignment['id']}/update"
        async with Http(fed.serving.url, token=other.secret) as http:
            announce, upload = with_retries(http.request), with_retries(http.upload)
            coming = asyncio.create_task(announce("POST", update, body=Announcement(**announcement(body))))
            await line.say(body[1_000:])
            assert json.loads((await line.answer())[2])["is_complete"]
            assert not (await coming)["is_complete"]
            assert (await upload(update, path, offset=0))["is_complete"]


async def test_an_announced_update_that_does_not_come_loses_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_UPDATES", 1)
    monkeypatch.setattr(room, "KEPT_S", 0.2)
    body = body_of(0.0, 0.0)
    async with central(tmp_path) as fed:
        silent, other = await fed.client("a"), await fed.client("b")
        for client in (silent, other):
            await fed.start_run(min_updates=1, clients=[client.name])
        for _ in range(2):              # be it announced again: that is one place
            await silent.announce(await silent.work(), body)
        assert (await other.announce(await other.work(), body)).status_code == 200


async def test_where_the_disk_cannot_keep_up_a_change_is_asked_to_wait_and_a_look_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_UNWRITTEN", -1)      # as if something waited at all times
    async with central(tmp_path) as fed:
        refused = await fed.people.post("/api/v1/runs", json={"task": "toy"})
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "busy", "1")
        assert (await fed.people.get("/api/v1/runs")).json() == []


def test_a_full_disk_says_when_to_come_again() -> None:
    connection = HTTPConnection({"type": "http", "headers": [], "path": "/"})
    problem = problem_of(StoreFull("no space left", fix="free some"), connection)
    assert (problem.status, problem.headers) == (507, {"Retry-After": "10"})


def _put(assignment: str, secret: str, num_bytes: int) -> bytes:
    return (
        f"PUT /api/v1/assignments/{assignment}/update HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {secret}\r\nContent-Length: {num_bytes}\r\n\r\n"
    ).encode()
