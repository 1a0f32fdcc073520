"""Who came and went: told once, together, and not of who is only started anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from central_scene import offer

from fednode.central.activity import Activity
from fednode.central.attendance import RETURN_S, Attendance
from fednode.central.presence import Member, Presence
from fednode.clock import HandClock
from fednode.store.event_list import EventList
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore


class Scene:
    """A central node's presence, looked at every second of a hand-moved clock."""

    def __init__(self, store: SqlStore, clock: HandClock) -> None:
        self.store, self.clock = store, clock
        self.presence, self.activity = Presence(clock, gone_after_s=60.0), Activity(clock)

    async def begin(self, *names: str) -> None:
        for name in names:
            self.presence.enrol(Member(name=name))
        away = await EventList(self.store).away()
        self.attendance = Attendance(self.store, self.presence, self.activity, self.clock, away)

    async def let_pass(self, seconds: float, *heard: str) -> None:
        """Looking every second, `heard` being heard each time."""
        for _ in range(int(seconds)):
            await self.clock.advance(1.0)
            for name in heard:
                self.presence.heard(name)
            await self.attendance.look()

    async def told(self) -> list[tuple[str, Any]]:
        events = await Queries(self.store, self.clock).events()
        return [(event.what, event.fields["clients"]) for event in events]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    clock = HandClock()
    store = await SqlStore.open(tmp_path, clock)
    yield Scene(store, clock)
    await store.close()


async def test_who_falls_silent_together_is_told_in_one_event_and_again_when_back(scene: Scene) -> None:
    await scene.begin("a", "b", "c")
    await scene.let_pass(3, "a", "b", "c")
    await scene.let_pass(59, "c")
    assert await scene.told() == []
    await scene.let_pass(2, "c")
    await scene.let_pass(5, "a", "c")
    assert await scene.told() == [("client gone", ["a", "b"]), ("client back", ["a"])]


async def test_who_is_started_anew_is_no_event_and_who_stays_away_is_one(scene: Scene) -> None:
    await scene.begin("a", "b")
    await scene.let_pass(1, "a", "b")
    scene.presence.leave("a")
    scene.presence.leave("b", "sharing paused by its owner")
    await scene.let_pass(RETURN_S / 2)
    await scene.let_pass(RETURN_S, "a")
    assert await scene.told() == [("client gone", ["b"])]
    [event] = await Queries(scene.store, scene.clock).events()
    assert event.fields["reason"] == "sharing paused by its owner"


async def test_after_a_restart_nobody_is_gone_a_second_time(scene: Scene) -> None:
    await scene.begin("a")
    await scene.let_pass(61)
    again = Scene(scene.store, scene.clock)
    await again.begin("a")
    await again.let_pass(70)
    assert await again.told() == [("client gone", ["a"])]
    await again.let_pass(1, "a")
    assert await again.told() == [("client gone", ["a"]), ("client back", ["a"])]


async def test_open_pages_hear_at_once_of_coming_going_and_new_offers(scene: Scene) -> None:
    await scene.begin("a", "b")
    for change in (
        lambda: scene.presence.heard("a"), lambda: scene.presence.leave("a"),
        lambda: scene.presence.enrol(Member(name="a", offers=(offer(),))), lambda: scene.presence.strike("a"),
    ):
        version = scene.activity.version
        change()
        await scene.let_pass(1)
        assert scene.activity.since(version) == {"a"}
    version = scene.activity.version
    await scene.let_pass(3)
    assert scene.activity.version == version            # nothing changed: nobody is woken
