"""A central node of the wire's words only: it says what a test tells it to, and remembers what it heard.

Scaffolding for the protocol. It decides nothing: no rounds, no store. HTTP/1.1 over asyncio streams.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fednode.core.params import Params
from fednode.wire.codec import encode
from fednode.wire.messages import OFFSET_HEADER, PROTOCOL, PROTOCOL_HEADER

JOIN_TOKEN = "join_right"
Reply = tuple[int, Any]         # status, JSON or bytes


def error(status: int, code: str) -> Reply:
    return status, {"code": code, "message": f"told: {code}", "fix": "a fix"}


@dataclass
class Heard:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    token: str
    body: bytes

    @property
    def what(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedCentral:
    """Start it by `async with`. `answers` overrules: "METHOD path-ending" -> what is answered instead.

    Where that is a function of the request, its None means: as always.
    """

    port: int = 0
    answers: dict[str, Reply | Callable[[Heard], Reply | None]] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)           # secret -> name
    work: list[dict[str, Any]] = field(default_factory=list)        # given out in order, until it is reported
    reported: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    models: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    hangs: bool = False             # takes every request and answers none

    async def __aenter__(self) -> ScriptedCentral:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._news, self._hears = asyncio.Event(), asyncio.Event()
        self._lines: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if killed: nobody is answered any more, every line is cut."""
        self._listener.close()
        self.hangs = False
        self.ring()
        for line, serving in list(self._lines.items()):
            line.transport.abort()
            if serving is not None:
                await asyncio.wait({serving})

    def model(self, params: Params) -> str:
        body = encode(params)
        sha256 = hashlib.sha256(body).hexdigest()
        self.models[sha256] = body
        return sha256

    def give(self, number: int, kind: str, **fields: Any) -> str:
        """Post an assignment; its id."""
        body = {
            "id": f"run_1.{number}.1", "run_id": "run_1", "run_number": 1, "number": number, "attempt": 1, "kind": kind,
            "rounds": 3, "task": "small", "run_seed": 7, "base_model": "", "base_model_bytes": 0, **fields,
        }
        self.work.append(body)
        self.ring()
        return str(body["id"])

    def withdraw(self, assignment: str) -> None:
        self.withdrawn.add(assignment)
        self.ring()

    def ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def calls(self, ending: str) -> list[Heard]:
        """What was heard of "METHOD path-ending"."""
        method, _, path = ending.partition(" ")
        return [h for h in self.heard if h.method == method and h.path.endswith(path)]

    async def until(self, ending: str, count: int = 1) -> Heard:
        """The `count`-th request of this kind, once it came."""
        async with asyncio.timeout(60):
            while len(self.calls(ending)) < count:
                await self._hears.wait()
        return self.calls(ending)[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines[writer] = asyncio.current_task()
        try:
            while (heard := await _read(reader)) is not None:
                self.heard.append(heard)
                self._hears.set()
                self._hears = asyncio.Event()
                while self.hangs:
                    await self._news.wait()
                status, answer = await self._answer(heard)
                writer.write(_http(heard.method, status, answer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._lines.pop(writer)
            writer.close()

    async def _answer(self, heard: Heard) -> Reply:
        for ending, reply in self.answers.items():
            if heard in self.calls(ending):
                told = reply(heard) if callable(reply) else reply
                if told is not None:
                    return told
        if heard.path == "/healthz":
            return 200, {"status": "ok"}
        if heard.what == "POST /api/v1/clients":
            return self._register(heard)
        if heard.token not in self.secrets:
            return error(401, "not_authorised")
        if heard.path.endswith("/me/work"):
            return await self._poll(heard.query)
        return self._report(heard, heard.path.split("/"))

    def _register(self, heard: Heard) -> Reply:
        if heard.token != JOIN_TOKEN:
            return error(401, "not_authorised")
        secret = f"secret-{len(self.heard)}"
        self.secrets[secret] = heard.json["name"]
        return 201, {"client_id": "cli_1", "name": heard.json["name"], "secret": secret}

    async def _poll(self, query: dict[str, str]) -> Reply:
        holding = query.get("holding", "")
        async with asyncio.timeout(60):
            while True:
                if holding in self.withdrawn:
                    return 200, {"withdrawn": True}
                due = [w for w in self.work if w["id"] not in self.reported | self.withdrawn]
                if due and not holding:
                    return 200, {"assignment": due[0]}
                if query["wait"] == "0" or not self._listener.is_serving():
                    return 200, {}
                await self._news.wait()

    def _report(self, heard: Heard, parts: list[str]) -> Reply:
        if heard.method == "GET" and parts[-1] == "params":
            return 200, self.models[parts[-2]]
        if heard.method == "PUT" and parts[-2] == "uploads":
            self.uploads[parts[-1]] = self.uploads.get(parts[-1], b"")[: int(heard.query["offset"])] + heard.body
            self._settle(parts[-1])
        if heard.method == "POST" and parts[-1] == "update":
            there = self.uploads.get(parts[-2], b"")
            ticket = {"url": f"/uploads/{parts[-2]}", "offset": len(there), "is_complete": parts[-2] in self.reported}
            return 200, ticket
        is_measured = parts[-1] == "metrics" and heard.json["evaluation"] and self._kind(parts[-2]) == "evaluate"
        if parts[-1] == "failure" or is_measured:
            self._settle(parts[-2])
        return 200, {}

    def _kind(self, assignment: str) -> str:
        return next((str(w["kind"]) for w in self.work if w["id"] == assignment), "")

    def _settle(self, assignment: str) -> None:
        self.reported.add(assignment)
        self.ring()


async def _read(reader: asyncio.StreamReader) -> Heard | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    method, target, _ = head[0].split(" ")
    parts = urlsplit(target)
    return Heard(
        method=method, path=parts.path, query={k: v[0] for k, v in parse_qs(parts.query).items()},
        token=headers.get("authorization", "").removeprefix("Bearer "),
        body=await reader.readexactly(int(headers.get("content-length", 0))),
    )


def _http(method: str, status: int, answer: Any) -> bytes:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    head = (
        f"HTTP/1.1 {status} Told\r\nContent-Length: {len(body)}\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\n"
        f"{OFFSET_HEADER}: 0\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
