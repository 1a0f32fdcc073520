"""The clients of a swarm: what a client node says over the wire, without data and without training.

Each registers, says what it offers, polls, measures the model that it gets, and sends it back with 1.0 added to every
number. They live in one process and speak the real protocol; `Board` is where all of them leave what happened.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import xxhash
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy.typing import NDArray

from fednode.bench.line import Line
from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.core.records import Offer
from fednode.core.status import RoundKind
from fednode.errors import AlreadyReported, BadParamsFile, FednodeError, NotAuthorised
from fednode.ports import Clock
from fednode.wire.answers import AskedToWait
from fednode.wire.codec import PREFIX_BYTES, encode
from fednode.wire.http import with_retries
from fednode.wire.messages import (
    Announcement,
    AssignmentBody,
    OfferBody,
    Presence,
    Progress,
    Registered,
    Registration,
    UploadTicket,
    Work,
    registration_text,
)

T = TypeVar("T")
Floats: TypeAlias = NDArray[np.float32]

TASK = "swarm"
POLL_S, POLL_GRACE_S = 25, 15.0
MODELS_KEPT = 2
NUM_EXAMPLES = 100
ERRORS_KEPT = 20


@dataclass(frozen=True)
class Model:
    """A model's file, and the update that every client of a swarm makes of it."""

    content: bytes
    update: bytes
    digest: str                 # of the update


@dataclass(kw_only=True)
class Board:
    """What happened to a swarm, and the params that its clients share: one copy of each for all."""

    num_params: int
    clock: Clock
    told_s: dict[int, list[float]] = field(default_factory=dict)    # by round: when each client heard of it
    reported: Counter[int] = field(default_factory=Counter)         # by round: updates and evaluations acknowledged
    token: str = ""             # some client's, for whoever looks at the end
    num_there: int = 0          # clients that said what they offer
    num_waits: int = 0          # tries that found nobody, or were asked to come again
    num_asked_to_wait: int = 0  # of these
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)                 # the first few
    on_round: Callable[[int], None] = lambda number: None           # somebody heard of this round, the first of all
    _models: dict[str, Model] = field(default_factory=dict)

    def heard(self, number: int) -> None:
        """One more client was told of this round."""
        is_first = number not in self.told_s
        self.told_s.setdefault(number, []).append(self.clock.now_s())
        if is_first:
            self.on_round(number)

    def failed(self, client: str, error: Exception) -> None:
        self.num_errors += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(f"{client}: {error}")

    def waits(self, error: FednodeError, wait_s: float) -> None:
        self.num_waits += 1
        self.num_asked_to_wait += isinstance(error, AskedToWait)

    def model(self, sha256: str, content: bytes) -> Model:
        """What came, checked. Raises BadParamsFile."""
        known = self._models.get(sha256)
        if known is None:
            if hashlib.sha256(content).hexdigest() != sha256:
                raise BadParamsFile(f"the model {sha256} arrived damaged", fix="look after the central node")
            while len(self._models) >= MODELS_KEPT:
                del self._models[next(iter(self._models))]
            known = self._models[sha256] = _with_update(content)
        elif content != known.content:
            raise BadParamsFile(f"the model {sha256} arrived damaged", fix="look after the central node")
        return known

    def first_model(self) -> Model:
        """Where a run begins: zeros."""
        content = encode(Params({"w": np.zeros(self.num_params, np.float32)}))
        return Model(b"", content, xxhash.xxh3_128_hexdigest(content))


def _with_update(content: bytes) -> Model:
    numbers = numbers_of(content)
    update = content[: len(content) - numbers.nbytes] + (numbers + np.float32(1)).tobytes()
    return Model(content, update, xxhash.xxh3_128_hexdigest(update))


def numbers_of(content: bytes) -> Floats:
    """The numbers of a model of one tensor."""
    start = PREFIX_BYTES + int.from_bytes(content[:PREFIX_BYTES], "little")
    return np.frombuffer(content, np.float32, offset=start)


class SwarmClient:
    """One client, as long as `live` runs."""

    def __init__(self, name: str, url: str, join_token: str, board: Board) -> None:
        self.name = name
        self.board = board
        self.line = Line(url)
        self._join_token = join_token

    async def live(self) -> None:
        """Join, and do what is asked, until cancelled. A central node that is away is waited for."""
        try:
            await self.join()
            while True:
                work = Work.model_validate(await self.patiently(self._poll))
                if work.assignment is not None:
                    self.board.heard(work.assignment.number)
                    await self.do(work.assignment)
        except NotAuthorised as error:
            self.board.failed(self.name, error)
        finally:
            self.line.close()

    async def join(self) -> None:
        """Register, and say what there is to offer."""
        key = Ed25519PrivateKey.generate()
        public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        body = Registration(name=self.name, public_key=public_key, proof=key.sign(registration_text(self.name)).hex())
        token = self._join_token
        answer = await self.patiently(lambda: self.line.json("POST", "/api/v1/clients", body, token=token))
        self.line.token = Registered.model_validate(answer).secret
        await self.patiently(lambda: self.line.json("PUT", "/api/v1/clients/me", _presence()))
        self.board.num_there += 1
        self.board.token = self.line.token

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """`call`, again and again while the central node is away or asks to be left alone."""
        return await with_retries(call, on_wait=self.board.waits)()

    async def train(self, work: AssignmentBody, model: Model) -> None:
        """Bring the update."""
        await self.bring(work, model)

    async def bring(self, work: AssignmentBody, model: Model) -> None:
        """Announce it and send it. Each try begins at the announcement, as a client node's does."""
        announcement = Announcement(
            num_bytes=len(model.update), digest=model.digest, num_examples=NUM_EXAMPLES if model.content else 0
        )

        async def once() -> None:
            ticket = UploadTicket.model_validate(
                await self.line.json("POST", f"/api/v1/assignments/{work.id}/update", announcement)
            )
            if not ticket.is_complete:
                await self.line.put(f"{ticket.url}?offset={ticket.offset}", model.update[ticket.offset :])

        with suppress(AlreadyReported):     # an answer was lost, and this is what it said
            await self.patiently(once)
        self.board.reported[work.number] += 1

    async def measure(self, work: AssignmentBody) -> None:
        body = Progress(evaluation={"values": {"loss": 1.0}, "num_examples": {"test": NUM_EXAMPLES}})
        await self.patiently(lambda: self.line.json("POST", f"/api/v1/assignments/{work.id}/metrics", body))

    async def do(self, work: AssignmentBody) -> None:
        """What is asked: fetch, measure, and bring an update."""
        try:
            if work.kind is RoundKind.INIT:
                return await self.bring(work, self.board.first_model())
            path = f"/api/v1/models/{work.base_model}/params"
            content = await self.patiently(lambda: self.line.fetch(path))
            await self.measure(work)
            if work.kind is RoundKind.TRAIN:
                await self.train(work, self.board.model(work.base_model, content))
            else:
                self.board.reported[work.number] += 1
        except NotAuthorised:
            raise
        except FednodeError as error:
            self.refused(work, error)

    def refused(self, work: AssignmentBody, error: FednodeError) -> None:
        """What this client brings is not wanted: nothing of the kind happens to one that does what it is asked."""
        self.board.failed(self.name, error)

    async def _poll(self) -> Any:
        path = f"/api/v1/clients/me/work?wait={POLL_S}"
        return await self.line.json("GET", path, timeout_s=POLL_S + POLL_GRACE_S)


def _presence() -> Presence:
    offer = Offer(
        task=TASK, fingerprint=f"{TASK}@1", schema={"type": "object", "properties": {}},
        metrics=(Metric(name="loss", combine="mean", goal="min"),),
    )
    return Presence(offers=[OfferBody.model_validate(offer.to_json())])


def client_name(number: int) -> str:
    """`swarm-0007`, so that name order is the order of numbers."""
    return f"{TASK}-{number:04}"


async def run_all(clients: list[SwarmClient]) -> None:
    """All of them, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.live())
