"""One connection to a central node that is kept open, for a thousand clients in one process.

A tenth of the work of a full HTTP client, so that what is measured is the central node and not its load. The rules
stay those of `wire`: what an answer means is read by `wire/answers.py`, what a failure is called by `cannot_reach`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from fednode.wire.answers import Reply, cannot_reach, read_reply
from fednode.wire.messages import MEDIA_TYPE, PROTOCOL, PROTOCOL_HEADER

BUFFER_BYTES = 1 << 20
TIMEOUT_S = 60.0                    # for the whole answer: loopback, and small params
_NO_BODY = (204, 304)


class Line:
    """A client's connection: one request at a time; opened when it is needed, and anew after it broke."""

    def __init__(self, url: str, token: str = "") -> None:
        address = urlsplit(url)
        self.url = url
        self.token = token
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def json(
        self, method: str, path: str, body: BaseModel | None = None, *, token: str = "", timeout_s: float = TIMEOUT_S
    ) -> Any:
        """The JSON of the answer. Raises the error that it carries, or CannotConnect."""
        content = b"" if body is None else body.model_dump_json(by_alias=True).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        return read_reply(await self.ask(method, path, content, headers, token=token, timeout_s=timeout_s))

    async def fetch(self, path: str) -> bytes:
        """The bytes that lie there."""
        reply = await self.ask("GET", path)
        if reply.status >= 300:
            read_reply(reply)
        return reply.content

    async def put(self, path: str, content: bytes) -> Any:
        """Send an update's body."""
        return read_reply(await self.ask("PUT", path, content, {"Content-Type": MEDIA_TYPE}))

    async def ask(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None, *,
        token: str = "", timeout_s: float = TIMEOUT_S,
    ) -> Reply:
        """One request and its answer, whatever that is. Raises CannotConnect."""
        head = self.head(method, path, len(content), headers or {}, token)
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await self.streams()
                writer.write(head + content)
                return await self._answer(reader)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise cannot_reach(self.url, error) from error
        except BaseException:           # cut short: what still comes would be taken for the next answer
            self.close()
            raise

    def head(self, method: str, path: str, num_bytes: int, headers: Mapping[str, str], token: str = "") -> bytes:
        """The request up to its body."""
        told = {
            "Host": f"{self._host}:{self._port}", PROTOCOL_HEADER: str(PROTOCOL),
            "Authorization": f"Bearer {token or self.token}", **headers,
        }
        if num_bytes or method in ("PUT", "POST"):
            told["Content-Length"] = str(num_bytes)
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection itself."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=BUFFER_BYTES)
        return self._streams

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            with suppress(RuntimeError):            # the event loop has ended
                self._streams[1].transport.abort()
            self._streams = None

    async def _answer(self, reader: asyncio.StreamReader) -> Reply:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        status = int(first.split(" ", 2)[1])
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = 0 if status in _NO_BODY else int(headers.get("content-length", "0"))
        content = await reader.readexactly(length) if length else b""
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(url=self.url, status=status, headers=headers, content=content)
