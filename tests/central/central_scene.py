"""The scene of these tests: a small task's offer, a real central node on loopback, clients that speak its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import xxhash
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fednode.central.serve import CentralSettings, Serving, serve
from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.core.records import Offer, RunConfig
from fednode.wire.codec import encode
from fednode.wire.messages import registration_text

TIMEOUT_S = 20.0            # generous: nothing here is a claim about speed


def offer(task: str = "toy", fingerprint: str = "toy@1", **changes: Any) -> Offer:
    schema = {
        "type": "object", "additionalProperties": False,
        "properties": {
            "epochs": {"type": "integer", "minimum": 1, "default": 1},
            "learning_rate": {"type": "number", "exclusiveMinimum": 0, "default": 0.5},
            "model": {"enum": ["linear", "cnn"], "default": "linear"},
        },
    }
    fields: dict[str, Any] = {"schema": schema, "metrics": (Metric(name="accuracy"),), "default_rounds": 2, **changes}
    return Offer(task=task, fingerprint=fingerprint, **fields)


def config(**changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "task": "toy", "fingerprint": "toy@1", "task_config": {"epochs": 1}, "strategy": "fedavg",
        "strategy_config": {}, "rounds": 2, "min_updates": 2, "cohort_fraction": 1.0, "deadline_s": 600.0, "seed": 7,
    }
    return RunConfig(**(fields | changes))


def params(*values: float) -> Params:
    return Params({"w": np.asarray(values, dtype=np.float32)})


def body_of(*values: float) -> bytes:
    return encode(params(*values))


def announcement(body: bytes, num_examples: int = 10) -> dict[str, Any]:
    digest = xxhash.xxh3_128_hexdigest(body)
    return {"num_bytes": len(body), "digest": digest, "num_examples": num_examples}


@dataclass
class Central:
    """A central node that answers, and who calls it."""

    serving: Serving
    people: httpx2.AsyncClient          # the CLI of the same machine: no token

    async def client(self, name: str, *offers: Offer) -> ScriptedClient:
        """A client node that has joined and says what it offers."""
        client = ScriptedClient(self.people, name)
        answer = await client.join(self.serving.join_token)
        assert answer.status_code == 200, answer.text
        await client.say(*(offers or (offer(),)))
        return client

    async def start_run(self, **request: Any) -> dict[str, Any]:
        answer = await self.people.post("/api/v1/runs", json={"task": "toy", **request})
        assert answer.status_code == 201, answer.text
        run: dict[str, Any] = answer.json()
        return run

    async def run(self, ref: object) -> dict[str, Any]:
        run: dict[str, Any] = (await self.people.get(f"/api/v1/runs/{ref}")).json()
        return run

    async def until(self, ref: object, *statuses: str) -> dict[str, Any]:
        """The run, once its status is one of these."""
        after = 0
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answer = await self.people.get(f"/api/v1/runs/{ref}/events", params={"after": after, "wait": 5})
                after = answer.json()["next"]
                run: dict[str, Any] = answer.json()["run"]
                if run["status"] in statuses:
                    return run


class ScriptedClient:
    """A client node whose every call the test decides. It trains by arithmetic: params + `step`."""

    def __init__(self, http: httpx2.AsyncClient, name: str, step: float = 1.0) -> None:
        self.http = http
        self.name = name
        self.step = step
        self.accuracy = 0.5             # of every model that it measures
        self.key = Ed25519PrivateKey.generate()
        self.secret = ""

    async def join(self, token: str) -> httpx2.Response:
        answer = await self.call("POST", "/api/v1/clients", json=self.registration(), token=token)
        self.secret = answer.json().get("secret", self.secret)
        return answer

    def registration(self) -> dict[str, str]:
        proof = self.key.sign(registration_text(self.name)).hex()
        return {"name": self.name, "public_key": self.key.public_key().public_bytes_raw().hex(), "proof": proof}

    async def say(self, *offers: Offer) -> httpx2.Response:
        return await self.call("PUT", "/api/v1/clients/me", json={"offers": [o.to_json() for o in offers]})

    async def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token or self.secret}", **more.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **more)

    async def poll(self, holding: str = "", wait: float = TIMEOUT_S) -> dict[str, Any]:
        answer = await self.call("GET", "/api/v1/clients/me/work", params={"wait": wait, "holding": holding})
        assert answer.status_code == 200, answer.text
        work: dict[str, Any] = answer.json()
        return work

    async def work(self) -> dict[str, Any]:
        """The next assignment."""
        async with asyncio.timeout(TIMEOUT_S):
            while (assignment := (await self.poll())["assignment"]) is None:
                pass
        found: dict[str, Any] = assignment
        return found

    async def measure(self, assignment: dict[str, Any], accuracy: float | None = None) -> httpx2.Response:
        values = {"accuracy": self.accuracy if accuracy is None else accuracy}
        evaluation = {"values": values, "num_examples": {"test": 10}}
        return await self.tell(assignment, "metrics", {"evaluation": evaluation})

    async def tell(self, assignment: dict[str, Any], what: str, body: dict[str, Any]) -> httpx2.Response:
        return await self.call("POST", f"/api/v1/assignments/{assignment['id']}/{what}", json=body)

    async def announce(self, assignment: dict[str, Any], body: bytes, **changes: Any) -> httpx2.Response:
        return await self.tell(assignment, "update", announcement(body) | changes)

    async def put(self, assignment: dict[str, Any], body: bytes, offset: int = 0) -> httpx2.Response:
        path = f"/api/v1/assignments/{assignment['id']}/update"
        return await self.call("PUT", path, params={"offset": offset}, content=body[offset:])

    async def offset(self, assignment: dict[str, Any]) -> int:
        answer = await self.call("HEAD", f"/api/v1/assignments/{assignment['id']}/update")
        return int(answer.headers["Upload-Offset"])

    async def bring(self, assignment: dict[str, Any], body: bytes) -> httpx2.Response:
        """Announce and send."""
        ticket = await self.announce(assignment, body)
        assert ticket.status_code == 200, ticket.text
        return await self.put(assignment, body)

    async def do(self, assignment: dict[str, Any]) -> None:
        """What a good client does: evaluate, train, report."""
        if assignment["kind"] == "init":
            await self.bring(assignment, body_of(0, 0, 0, 0))
            return
        await self.measure(assignment)
        if assignment["kind"] == "train":
            model = await self.call("GET", f"/api/v1/models/{assignment['base_model']}/params")
            before = np.frombuffer(model.content[-16:], dtype=np.float32)
            answer = await self.bring(assignment, body_of(*(before + np.float32(self.step))))
            assert answer.status_code == 200, answer.text

    async def work_on(self) -> None:
        """Be a good client until cancelled."""
        while True:
            await self.do(await self.work())


@asynccontextmanager
async def central(state_dir: Path, **changes: Any) -> AsyncIterator[Central]:
    """A real central node on a free port of loopback; the same `state_dir` again is its restart."""
    settings = CentralSettings(state_dir=state_dir / "central", user_state_dir=state_dir, **({"port": 0} | changes))
    ready: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, ready.set_result, stop=stop))
    try:
        serving = await _either(ready, task)
        url = f"http://127.0.0.1:{serving.port}"
        async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S + 10, trust_env=False) as http:
            yield Central(serving, http)
    finally:
        stop.set()
        await asyncio.wait([task])
    await task


async def _either(ready: asyncio.Future[Serving], task: asyncio.Task[None]) -> Serving:
    """What it tells when it answers; raises what kept it from that."""
    waiting: set[asyncio.Future[Any]] = {ready, task}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        task.result()
    return ready.result()


@asynccontextmanager
async def at_work(*clients: ScriptedClient) -> AsyncIterator[None]:
    """These clients do what they are asked, meanwhile."""
    tasks = [asyncio.create_task(client.work_on()) for client in clients]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
