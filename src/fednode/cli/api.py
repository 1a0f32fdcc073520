"""What commands ask of a central node, and how they wait for a run."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fednode.settings import Settings, load_settings, pin_of, read_note, url_by_note
from fednode.wire.http import Http, with_retries
from fednode.wire.messages import PauseRequest, RunRequest

T = TypeVar("T")
FINAL = {"completed", "failed", "cancelled"}
POLL_S = 25.0


@dataclass(frozen=True)
class Api:
    """The central node's API for people, under the paths of `docs/reference/api.md`."""

    http: Http

    async def get(self, path: str, **params: str) -> Any:
        return await self.http.request("GET", f"/api/v1/{path}", params=params, timeout_s=POLL_S + 15)

    async def compare(self, refs: Sequence[str]) -> dict[str, Any]:
        """These runs beside one another, with the table of local-only runs where there is one."""
        asked = "&".join(f"run={quoted(ref)}" for ref in refs)
        return dict(await self.get(f"compare?{asked}"))

    async def events(self, ref: str) -> list[dict[str, Any]]:
        """All that happened in a run so far, in order."""
        found: list[dict[str, Any]] = []
        path, after = f"runs/{quoted(ref)}/events", 0
        while (answer := await self.get(path, after=str(after)))["events"]:
            found += answer["events"]
            after = answer["next"]
        return found

    async def pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        """An answer as it comes, for what is too much to hold."""
        async with aclosing(self.http.pieces(f"/api/v1/{path}")) as pieces:
            async for piece in pieces:
                yield piece

    async def metric_rows(self, ref: str, *, from_round: int = 0) -> AsyncGenerator[dict[str, str], None]:
        """The rows of a run's metrics.csv, by the names of its columns, as they come."""
        names: list[str] = []
        async with aclosing(self.pieces(f"runs/{quoted(ref)}/metrics.csv?from_round={from_round}")) as pieces:
            async for lines in _whole_lines(pieces):
                for cells in csv.reader(lines):
                    if names:
                        yield dict(zip(names, cells, strict=True))
                    names = names or cells

    async def start_run(self, request: RunRequest) -> dict[str, Any]:
        return dict(await self.http.request("POST", "/api/v1/runs", body=request))

    async def act(self, ref: str, verb: str, body: PauseRequest | None = None) -> dict[str, Any]:
        """`pause`, `resume` or `cancel` a run."""
        return dict(await self.http.request("POST", f"/api/v1/runs/{quoted(ref)}/{verb}", body=body))

    async def delete(self, path: str) -> dict[str, Any]:
        return dict(await self.http.request("DELETE", f"/api/v1/{path}"))

    async def act_on_client(self, name: str, verb: str) -> dict[str, Any]:
        """`revoke` or `rotate` a client."""
        return dict(await self.http.request("POST", f"/api/v1/clients/{quoted(name)}/{verb}"))

    async def joining(self, *, is_new: bool) -> dict[str, Any]:
        """What a new client needs: address and join token. `is_new`: the old token admits nobody any more."""
        return dict(await self.http.request("POST" if is_new else "GET", "/api/v1/tokens/join"))

    async def download(self, sha256: str, target: Path) -> None:
        await self.http.download(f"/api/v1/models/{sha256}/params", target, expect_sha256=sha256)

    async def follow(self, ref: str, on_event: Callable[[dict[str, Any]], None], after: int = 0) -> dict[str, Any]:
        """Tell every event of the run until it has ended; its summary. Outlives a restart of the central node."""
        wait_s = POLL_S
        while True:
            path, params = f"runs/{quoted(ref)}/events", {"after": str(after), "wait": str(wait_s)}
            answer = await with_retries(self.get)(path, **params)
            for event in answer["events"]:
                on_event(event)
            after = answer["next"]
            if answer["run"]["status"] in FINAL:
                if not answer["events"]:
                    return dict(answer["run"])
                wait_s = 0.0            # it has ended: what is left to tell is there already


async def _whole_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    rest = b""
    async for piece in pieces:
        whole, is_line, rest = (rest + piece).rpartition(b"\n")
        yield whole.decode().split("\n") if is_line else []


def quoted(ref: str) -> str:
    return quote(ref.removeprefix("#"), safe="")


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[Api]:
    """The API, opened by `--token` or by the note that this user's own central node left."""
    note = read_note(settings.state_dir, settings.central)
    url, token = url_by_note(settings.central, note), settings.token or str(note.get("operator_token", ""))
    async with Http(url, token=token, ca=settings.ca, pin=pin_of(note)) as http:
        yield Api(http)


def ask(
    question: Callable[[Api], Coroutine[Any, Any, T]], central: str | None, token: str | None, ca: Path | None
) -> T:
    """Open the API that the flags name, put one question, close it."""
    settings = load_settings(central=central, token=token, ca=ca)

    async def asked() -> T:
        async with open_api(settings) as api:
            return await question(api)

    return asyncio.run(asked())
