"""Who lives in a simulated world: client nodes that speak the wire's messages, a bad line, a person, and fate.

A site trains by arithmetic on whole numbers: what it brings depends on its name and on the model that it got, and on
nothing else, so every mean of it can be worked out to the bit. Each has its own dice: what happens to one does not
change what another throws.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulated_world import Answer, Lost, Request, World, world

from fednode.core.journal import JournalRow, check_chain
from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.core.records import Offer
from fednode.wire.codec import encode
from fednode.wire.messages import OFFSET_HEADER, registration_text

Values = tuple[float, ...]
ZEROS: Values = (0.0, 0.0, 0.0, 0.0)
AGAIN = (408, 500, 503, 507)            # answers after which the same may be asked again
ENDED = ("completed", "failed", "cancelled")
# What a body may be told that says nothing of the update: it is announced once more.
NOT_THIS_TIME = ("200", "400 usage", "404 not_found", "409 conflict", "413 too_large", "422 bad_params_file")
PATIENCE_S = 25.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 10.0     # at most so long: full jitter, as a client node waits
LOOK_EVERY_S = 15.0
OFFER = Offer(
    task="toy", fingerprint="toy@1", schema={"type": "object", "properties": {}}, metrics=(Metric(name="accuracy"),)
)


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How often what goes wrong: chances by request, by assignment, or by a minute of fate."""

    lost: float = 0.0                   # a request, or its answer
    twice: float = 0.0                  # and the second one may come much later
    broken: float = 0.0                 # an update's body is cut, or a byte of it is another
    forgets: float = 0.0                # an assignment: the site is started anew in the middle of it
    silent: float = 0.0                 # an assignment: the site is away for minutes
    wrong: float = 0.0                  # an assignment: a failure, or an update that cannot be taken
    slow: float = 0.0                   # an assignment: it trains beyond the deadline
    down_s: float = 0.0                 # the central node is killed now and then, and away for up to so long
    full: float = 0.0                   # a minute: the disk is full for some transactions
    meddles: float = 0.0                # a minute: a person pauses, resumes, cancels, revokes


CALM = Weather()
# Nobody is silent for as long as `gone_after_s`, no deadline passes: all that happens must leave no trace.
ROUGH = Weather(lost=0.04, twice=0.04, broken=0.3, forgets=0.1, down_s=15, full=0.5)
# Whatever may happen to a federation.
WILD = replace(ROUGH, silent=0.06, wrong=0.06, slow=0.05, down_s=90, meddles=0.5)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a site was told is in the store."""

    run_id: str
    number: int
    attempt: int
    client: str
    num_examples: int


@dataclass(kw_only=True)
class Federation:
    """A central node in its world, its sites, and what everybody was told."""

    world: World
    weather: Weather
    sites: list[Site] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    said: list[str] = field(default_factory=list)           # what the sites brought, and when: the trace
    struck: dict[str, int] = field(default_factory=dict)    # faults that really happened
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    run_ref: str = "1"

    def spawn(self, *works: Coroutine[Any, Any, None]) -> None:
        """Let these go on; what fails in one of them ends the play at `look`."""
        self.tasks += [self.world.loop.create_task(work) for work in works]

    def look(self) -> None:
        """Raise what somebody has stumbled over."""
        for task in self.tasks:
            if task.done():
                task.result()

    def strike(self, what: str) -> None:
        self.struck[what] = self.struck.get(what, 0) + 1

    async def surely(self, request: Request) -> Answer:
        """An operator's request, asked until it is answered."""
        while True:
            with suppress(Lost):
                answer = await self.world.call(request)
                if answer.status not in AGAIN:
                    return answer
            await asyncio.sleep(0.5)

    async def status(self) -> str:
        """The run's, without all that its page shows; "" while no central node is up."""
        central = self.world.central
        if central is None or not central.is_ready:
            return ""
        return next((run.status.value for run in await central.store.runs() if str(run.number) == self.run_ref), "")

    async def show(self, what: str = "") -> Any:
        return (await self.surely(Request(method="GET", path=f"/api/v1/runs/{self.run_ref}{what}"))).json

    async def model(self, sha256: str) -> bytes:
        answer = await self.surely(Request(method="GET", path=f"/api/v1/models/{sha256}/params"))
        assert answer.status == 200
        return answer.body

    async def journal(self) -> list[JournalRow]:
        """Raises StoreDamaged where its chain is broken."""
        rows = [JournalRow(**row) for row in await self.show("/journal")]
        check_chain(rows)
        return rows


@dataclass(kw_only=True)
class Line:
    """Between a site and the central node. What was lost may have been done; what came may come again, later."""

    fed: Federation
    dice: random.Random

    async def ask(self, request: Request) -> Answer:
        """Raises Lost."""
        await asyncio.sleep(self.dice.uniform(0.001, 0.2))
        if self._strikes("twice"):
            again = self._once_more(request, self.dice.choice([0.0, 0.1, 3.0, 40.0]))
            self.fed.spawn(again)
        if self._strikes("lost"):
            raise Lost("the request")
        answer = await self.fed.world.call(request)
        if self._strikes("lost"):
            raise Lost("the answer")
        return answer

    async def send(self, request: Request, body: bytes) -> Answer:
        """An update's body, in pieces. Raises Lost."""
        half, stop = len(body) // 2, len(body)
        if stop > 1 and self._strikes("broken"):
            if self.dice.random() < 0.5:
                body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
            else:
                stop = self.dice.randrange(stop)
        pieces = ((0.0, body[: min(half, stop)]), (self.dice.uniform(0, 2), body[min(half, stop) : stop]))
        return await self.ask(replace(request, chunks=pieces, num_bytes=len(body), is_cut=stop < len(body)))

    def _strikes(self, what: str) -> bool:
        is_struck = self.dice.random() < getattr(self.fed.weather, what)
        if is_struck:
            self.fed.strike(what)
        return is_struck

    async def _once_more(self, request: Request, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with suppress(Lost):
            await self.fed.world.call(request)


@dataclass(kw_only=True)
class Site:
    """A client node."""

    fed: Federation
    name: str
    index: int
    secret: str = ""

    def __post_init__(self) -> None:
        self.dice = random.Random(f"site {self.fed.world.seed} {self.name}")
        self.line = Line(fed=self.fed, dice=self.dice)

    @property
    def step(self) -> float:
        return float(1 + self.index % 7)

    @property
    def num_examples(self) -> int:
        return 1 + self.index % 5

    def trained(self, base: Values) -> Values:
        """As float32 has it, in the shape of ZEROS."""
        return tuple(float(value) for value in np.asarray(base, np.float32) + np.float32(self.step))

    # --- joining ------------------------------------------------------------------------------------

    async def join(self, token: str) -> None:
        key = Ed25519PrivateKey.from_private_bytes(self.name.encode().ljust(32, b"."))
        body = {
            "name": self.name, "public_key": key.public_key().public_bytes_raw().hex(),
            "proof": key.sign(registration_text(self.name)).hex(),
        }
        self.secret = (await self.fed.world.call(post("/api/v1/clients", body, token))).json["secret"]
        await self.say()

    async def say(self) -> None:
        body = {"offers": [OFFER.to_json()]}
        await self.surely(Request(method="PUT", path="/api/v1/clients/me", bearer=self.secret, chunks=json_of(body)))

    # --- working ------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Be a client node, until it is revoked. What it offers is known since it joined."""
        while True:
            answer = await self.surely(self._poll(wait=PATIENCE_S))
            if answer.status != 200:
                self.fed.said.append(f"{self.name} {answer.said}")
                return
            if (assignment := answer.json["assignment"]) is not None:
                await self._do(assignment)

    async def _do(self, assignment: dict[str, Any]) -> None:
        if self._happens("silent"):
            if self.dice.random() < 0.5:
                await self.surely(post("/api/v1/clients/me/leave", {"reason": "paused by its owner"}, self.secret))
            await asyncio.sleep(self.dice.uniform(20, 400))
        if assignment["kind"] == "init":
            await self._bring(assignment, ZEROS)
            return
        model = await self.surely(self._get(f"/api/v1/models/{assignment['base_model']}/params"))
        measured = {"values": {"accuracy": self.index / 32}, "num_examples": {"test": self.num_examples}}
        told = await self.surely(self._tell(assignment, "metrics", {"evaluation": measured}))
        if assignment["kind"] == "evaluate" or (model.status, told.status) != (200, 200):
            self._note(assignment, f"measured {told.said}")
        elif await self._train(assignment):
            await self._bring(assignment, self.trained(tuple(np.frombuffer(model.body[-16:], np.float32))))

    async def _train(self, assignment: dict[str, Any]) -> bool:
        """Whether there is an update to bring, and it is wanted still."""
        left_s = 300.0 if self._happens("slow") else self.dice.uniform(0.1, 20)
        if self._happens("forgets"):
            await asyncio.sleep(self.dice.uniform(0, 10))
            await self.say()
            return False
        while left_s > 0:
            await asyncio.sleep(min(10.0, left_s))
            left_s -= 10.0
            held = await self.surely(self._poll(holding=assignment["id"]))
            if held.status != 200 or held.json["withdrawn"]:
                return False
        if self._happens("wrong"):
            await self._fail(assignment)
            return False
        return True

    async def _fail(self, assignment: dict[str, Any]) -> None:
        """A failure that it tells, or an update that nobody can take."""
        if self.dice.random() < 0.5:
            told = await self.surely(self._tell(assignment, "failure", {"code": "task_error", "reason": "no data"}))
            self._note(assignment, f"failed {told.said}")
        else:
            await self._bring(assignment, self.dice.choice([(float("nan"), *ZEROS[1:]), ZEROS[:3]]))

    async def _bring(self, assignment: dict[str, Any], values: Values) -> None:
        """Announce and send, until it is taken or not wanted."""
        num_examples = 0 if assignment["kind"] == "init" else self.num_examples
        body, path = body_of(*values), f"/api/v1/assignments/{assignment['id']}/update"
        while True:
            said = await self.surely(post(path, announcement(body, num_examples), self.secret))
            if said.status == 200 and not said.json["is_complete"]:
                said = await self._put(path, body, said.json["offset"])
            is_taken = said.status == 200 and said.json["is_complete"]
            if is_taken:
                self.fed.taken.append(Taken(
                    run_id=assignment["run_id"], number=assignment["number"], attempt=assignment["attempt"],
                    client=self.name, num_examples=num_examples,
                ))
            if is_taken or said.said not in NOT_THIS_TIME:
                self._note(assignment, f"brought {said.said}")
                return
            await asyncio.sleep(0.5)

    async def _put(self, path: str, body: bytes, offset: int) -> Answer:
        """The last answer to a body that goes on where the one before was cut; or to the question where that was."""
        request = Request(method="PUT", path=path, bearer=self.secret)
        while True:
            with suppress(Lost):
                answer = await self.line.send(replace(request, query={"offset": offset}), body[offset:])
                if answer.status not in AGAIN:
                    return answer
            await asyncio.sleep(self.dice.uniform(0.1, 2))
            head = await self.surely(Request(method="HEAD", path=path, bearer=self.secret))
            if head.status != 200:
                return Answer(status=404, headers={}, body=b'{"code": "not_found"}')
            offset = int(head.headers[OFFSET_HEADER.lower()])

    # --- asking ---------------------------------------------------------------------------------------

    async def surely(self, request: Request) -> Answer:
        """An answer that says something, however often it must be asked for."""
        limit_s = FIRST_RETRY_S
        while True:
            with suppress(Lost):
                answer = await self.line.ask(request)
                if answer.status not in AGAIN:
                    return answer
            await asyncio.sleep(self.dice.uniform(0.01, limit_s))
            limit_s = min(LAST_RETRY_S, 2 * limit_s)

    def _poll(self, *, holding: str = "", wait: float = 0.0) -> Request:
        return self._get("/api/v1/clients/me/work", wait=wait, holding=holding)

    def _get(self, path: str, **query: Any) -> Request:
        return Request(method="GET", path=path, query=query, bearer=self.secret)

    def _tell(self, assignment: dict[str, Any], what: str, body: Any) -> Request:
        return post(f"/api/v1/assignments/{assignment['id']}/{what}", body, self.secret)

    def _happens(self, what: str) -> bool:
        is_so = self.dice.random() < getattr(self.fed.weather, what)
        if is_so:
            self.fed.strike(what)
        return is_so

    def _note(self, assignment: dict[str, Any], what: str) -> None:
        when = f"{self.fed.world.loop.now_s:.6f}"
        self.fed.said.append(f"{when} {self.name} {assignment['number']}.{assignment['attempt']} {what}")


# --- who is stronger than a site ----------------------------------------------------------------------


@dataclass(kw_only=True)
class Fate:
    """Kills the central node, fills its disk, starts it again."""

    fed: Federation

    def __post_init__(self) -> None:
        self.dice = random.Random(f"fate {self.fed.world.seed}")
        self._known: list[JournalRow] = []

    async def rule(self) -> None:
        """Until the weather is calm."""
        world = self.fed.world
        while self.fed.weather.down_s:
            await asyncio.sleep(self.dice.uniform(1, 40))
            if self.dice.random() < self.fed.weather.full:
                world.full_steps = sorted(self.dice.sample(range(1, 60), self.dice.randrange(1, 12)))
            where = self.dice.choice(["now", "thread", "commit"])
            if where == "now" and world.central is not None:
                world.kill()
            elif where != "now":
                world.fatal = {where: self.dice.randrange(1, 60)}
        world.fatal, world.full_steps = {}, []

    async def keep_up(self) -> None:
        """A service that starts the central node again, after a while."""
        while True:
            await self.fed.world.died.wait()
            await asyncio.sleep(self.dice.uniform(0.1, max(0.2, self.fed.weather.down_s)))
            with suppress(Lost):
                await self.fed.world.start()
                self.fed.spawn(self._read_journal())

    async def _read_journal(self) -> None:
        """What was decided once stands, whatever happened since."""
        rows = await self.fed.journal()
        longer, shorter = sorted([rows, self._known], key=len, reverse=True)
        assert longer[: len(shorter)] == shorter, "a restart has changed the journal"
        self._known = longer


@dataclass(kw_only=True)
class Person:
    """Pauses, resumes, cancels and revokes; and in the end wants every run to go on."""

    fed: Federation

    def __post_init__(self) -> None:
        self.dice = random.Random(f"person {self.fed.world.seed}")
        self.answers: list[str] = []

    async def meddle(self) -> None:
        """Until the weather is calm."""
        while self.fed.weather.meddles:
            await asyncio.sleep(self.dice.uniform(1, 120))
            if self.dice.random() < self.fed.weather.meddles:
                await self._do(self.dice.choices(
                    ["pause", "pause now", "resume", "revoke", "cancel"], [3, 3, 4, 1, 0.5]
                )[0])

    async def _do(self, what: str) -> None:
        if what == "revoke":
            site = self.dice.choice(self.fed.sites)
            answer = await self.fed.surely(post(f"/api/v1/clients/{site.name}/revoke"))
        else:
            verb, _, now = what.partition(" ")
            body = {"now": True} if now else None
            answer = await self.fed.surely(post(f"/api/v1/runs/{self.fed.run_ref}/{verb}", body))
        self.fed.strike(what)
        self.answers.append(f"{self.fed.world.loop.now_s:.3f} {what} {answer.said}")

    async def see_to_the_end(self, within_s: float) -> dict[str, Any]:
        """The run as it ended. Whatever paused it, it is resumed."""
        until_s = self.fed.world.loop.now_s + within_s
        while self.fed.world.loop.now_s < until_s:
            self.fed.look()
            status = await self.fed.status()
            if status in ENDED:
                return dict(await self.fed.show())
            if status == "paused":
                await self.fed.surely(post(f"/api/v1/runs/{self.fed.run_ref}/resume"))
            await asyncio.sleep(LOOK_EVERY_S)
        run = await self.fed.show()
        raise AssertionError(f"the run has not ended: {run['status']}, {run['reason']!r}")


def mean(updates: list[tuple[int, Values]]) -> Values:
    """By examples: exact as fractions, rounded to a double, then to a float32."""
    total = sum(num for num, _ in updates)
    columns = zip(*(values for _, values in updates), strict=True)
    exact = [sum(num * Fraction(value) for (num, _), value in zip(updates, column, strict=True)) for column in columns]
    return tuple(float(np.float32(float(value) / float(total))) for value in exact)


def post(path: str, body: Any = None, bearer: str = "") -> Request:
    return Request(method="POST", path=path, bearer=bearer, chunks=() if body is None else json_of(body))


def json_of(body: Any) -> tuple[tuple[float, bytes], ...]:
    return ((0.0, json.dumps(body).encode()),)


def body_of(*values: float) -> bytes:
    """A params file of one tensor."""
    return encode(Params({"w": np.asarray(values, dtype=np.float32)}))


def announcement(body: bytes, num_examples: int) -> dict[str, Any]:
    return {"num_bytes": len(body), "digest": xxhash.xxh3_128_hexdigest(body), "num_examples": num_examples}


def enrolled(names: list[str], folder: Path) -> dict[str, str]:
    """Let these join a new central node, whose state is left in `folder`; their secrets."""
    with world(0) as made:
        fed = Federation(world=made, weather=CALM)
        sites = [Site(fed=fed, name=name, index=index) for index, name in enumerate(names)]

        async def join_all() -> None:
            await made.start()
            token = (await made.call(Request(method="GET", path="/api/v1/tokens/join"))).json["join_token"]
            for site in sites:
                await site.join(token)
            await made.stop()

        made.run(join_all())
        shutil.copytree(made.state_dir.parent, folder)
    return {site.name: site.secret for site in sites}
