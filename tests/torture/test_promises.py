"""R1, R2, R4 at a real central node: what got a 2xx is in the model, once, or the record says why not.

Clients behave well, twice, late, badly or not at all, as a seed decides; afterwards every answer that they got is held
against the run's record, each model against the mean of what its round took, and what a reader saw meanwhile against
what came of it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torture_scale import pick

sys.path.append(str(Path(__file__).parents[1] / "central"))

from central_scene import TIMEOUT_S, Central, ScriptedClient, body_of, central

ROUNDS = pick(5, 60)
SEEDS = pick((1,), tuple(range(10)))
STEADY, OTHERS = ("a", "b"), ("c", "d", "e", "f")
WAYS = ("well", "twice", "another", "late", "broken", "fails", "leaves")


@dataclass
class Heard:
    """What the clients were answered, by (round, client)."""

    taken: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)     # got a 2xx: the params that it brought
    refused: dict[tuple[int, str], str] = field(default_factory=dict)          # the code
    late: list[tuple[int, str]] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)


@dataclass
class Storm:
    fed: Central
    seed: int
    heard: Heard = field(default_factory=Heard)
    after: list[asyncio.Task[None]] = field(default_factory=list)
    over: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))      # by round
    seen: list[tuple[int, list[str]]] = field(default_factory=list)     # rounds and journal, by a reader

    async def behave_for_ever(self, client: ScriptedClient) -> None:
        while True:
            assignment = await client.work()
            if assignment["kind"] == "train":
                await self.train(client, assignment)
            else:
                await client.do(assignment)

    async def train(self, client: ScriptedClient, assignment: dict[str, Any]) -> None:
        rng = random.Random(f"{self.seed} {assignment['number']} {client.name}")     # not in order of arrival
        way = rng.choice(WAYS if client.name in OTHERS else WAYS[:3])
        self.heard.ways[way] += 1
        key, values = (assignment["number"], client.name), await trained(client, assignment, rng.randrange(100) / 8)
        body = body_of(*values)
        await client.measure(assignment)
        if way in ("well", "twice", "another"):
            for number in range(1 if way == "well" else 2):
                again = body_of(*(values + 1)) if way == "another" and number else body
                self.note(key, values, await self.bring(client, assignment, again), is_first=not number)
        elif way == "broken":
            answer = await client.bring(assignment, body_of(float("nan"), 0, 0, 0))
            assert answer.status_code == 422
            self.heard.refused[key] = "refused"
        elif way == "fails":
            answer = await client.tell(assignment, "failure", {"code": "task_error", "reason": "out of memory"})
            assert answer.status_code == 200
            self.heard.refused[key] = "task_error"
        else:
            await client.announce(assignment, body)
            await client.call("POST", "/api/v1/clients/me/leave")
            self.heard.refused[key] = "gone"
            if way == "late":
                self.after.append(asyncio.ensure_future(self.send_late(client, assignment, body)))
            await self.over[assignment["number"]].wait()

    async def bring(self, client: ScriptedClient, assignment: dict[str, Any], body: bytes) -> int:
        """The status of the last answer: of the announcement, where that was refused."""
        announced = await client.announce(assignment, body)
        return announced.status_code if announced.is_error else (await client.put(assignment, body)).status_code

    def note(self, key: tuple[int, str], values: np.ndarray, status: int, *, is_first: bool) -> None:
        if is_first:
            assert status == 200, "nothing was wrong with it, and its round was open"
            self.heard.taken[key] = values
        else:
            assert status in (200, 409), "the same again, or another body: never a fault"

    async def send_late(self, client: ScriptedClient, assignment: dict[str, Any], body: bytes) -> None:
        await self.over[assignment["number"]].wait()
        answer = await client.put(assignment, body)
        assert (answer.status_code, answer.json()["code"]) == (409, "round_closed")
        self.heard.late.append((assignment["number"], client.name))

    async def watch(self) -> str:
        """Rounds and journal, again and again, as any reader sees them; the status with which the run ends."""
        while True:
            run = await self.fed.run(1)
            journal = (await self.fed.people.get("/api/v1/runs/1/journal")).json()
            self.seen.append((run["rounds"], [row["hash"] for row in journal]))
            for number in range(run["rounds"] + 1):
                self.over[number].set()
            if run["status"] != "running":
                return str(run["status"])
            await asyncio.sleep(0.02)


async def trained(client: ScriptedClient, assignment: dict[str, Any], step: float) -> np.ndarray:
    model = await client.call("GET", f"/api/v1/models/{assignment['base_model']}/params")
    return np.frombuffer(model.content[-16:], dtype=np.float32) + np.float32(step)


def mean(updates: list[np.ndarray]) -> np.ndarray:
    """By hand: ten examples each, summed in float64 in the order of names, cast once."""
    total = np.zeros(4)
    for update in updates:
        total += 10.0 * update.astype(np.float64)
    return (total / (10.0 * len(updates))).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_acknowledged_is_in_the_model_once_or_the_record_says_why_not(
    tmp_path: Path, seed: int, figures: Any
) -> None:
    async with central(tmp_path) as fed:
        storm = Storm(fed, seed)
        clients = [await fed.client(name) for name in (*STEADY, *OTHERS)]
        await fed.start_run(rounds=ROUNDS, min_updates=2)
        tasks = [asyncio.ensure_future(storm.behave_for_ever(client)) for client in clients]
        watching = asyncio.ensure_future(storm.watch())
        async with asyncio.timeout(TIMEOUT_S * ROUNDS):
            await asyncio.wait({watching, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            assert watching.done(), [task.exception() for task in tasks if task.done()]
            assert watching.result() == "completed"
            await asyncio.gather(*storm.after)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hold_against_the_record(fed, storm.heard)
        require_monotone(storm.seen)
        figures.note(seed=seed, rounds=ROUNDS, ways=dict(storm.heard.ways), looks=len(storm.seen))


async def hold_against_the_record(fed: Central, heard: Heard) -> None:
    history = [row for row in (await fed.run(1))["history"] if row["kind"] == "train"]
    assert [(row["status"], row["attempt"]) for row in history] == [("committed", 1)] * ROUNDS
    for row in history:
        number = row["number"]
        taken = {client: values for (of, client), values in sorted(heard.taken.items()) if of == number}
        assert {c["client"] for c in row["clients"] if c["status"] == "reported"} == set(taken)
        assert all(c["num_examples"] == 10 for c in row["clients"] if c["client"] in taken), "once, not twice"
        codes = {c["client"]: c["failure"]["code"] for c in row["clients"] if c["failure"]}
        assert codes == {client: code for (of, client), code in heard.refused.items() if of == number}
        model = await fed.people.get(f"/api/v1/models/{row['model_sha256']}/params")
        assert np.frombuffer(model.content[-16:], np.float32).tobytes() == mean(list(taken.values())).tobytes()
    late = [(e["fields"]["round"], e["fields"]["client"]) for e in await events_of(fed) if e["what"] == "late"]
    assert sorted(late) == sorted(heard.late)
    assert {"late", "broken", "twice", "another"} <= set(heard.ways), "the seed tried the ways that matter"


async def events_of(fed: Central) -> list[dict[str, Any]]:
    """All of the run, page by page."""
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["seq"] if events else 0
        page = (await fed.people.get("/api/v1/runs/1/events", params={"after": after, "limit": 1000})).json()["events"]
        if not page:
            return events
        events += page


def require_monotone(seen: list[tuple[int, list[str]]]) -> None:
    """A reader never saw a round go back, nor a decision change."""
    assert len(seen) > ROUNDS
    for (rounds, journal), (later_rounds, later_journal) in pairwise(seen):
        assert rounds <= later_rounds
        assert later_journal[: len(journal)] == journal


async def test_an_update_of_an_attempt_that_made_no_model_is_on_record_with_the_reason(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        await fed.start_run(rounds=1, min_updates=2)
        await a.do(await a.work())
        held, other = await a.work(), await b.work()
        await a.do(held)
        await b.tell(other, "failure", {"code": "task_error", "reason": "out of memory"})
        async with asyncio.timeout(TIMEOUT_S):
            while (row := (await fed.run(1))["history"][0])["status"] != "abandoned":
                pass
        assert row["reason"] == "round 1, attempt 1: 1 updates. b: out of memory"
        assert {c["client"]: (c["status"], c["num_examples"]) for c in row["clients"]} == {
            "a": ("reported", 10), "b": ("failed", None)
        }
        await fed.people.post("/api/v1/runs/1/cancel")
        assert (await fed.run(1))["reason"] == "cancelled by a person"


async def test_what_is_taken_back_is_refused_and_on_record_as_withdrawn(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1, min_updates=1)
        await a.do(await a.work())
        held = await a.work()
        await fed.people.post("/api/v1/runs/1/cancel")
        answer = await a.announce(held, body_of(1, 1, 1, 1))
        assert (answer.status_code, answer.json()["code"]) == (409, "withdrawn")
        row = (await fed.run(1))["history"][0]
        assert (row["status"], row["reason"]) == ("abandoned", "cancelled by a person")
        assert [c["status"] for c in row["clients"]] == ["withdrawn"]
