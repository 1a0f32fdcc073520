"""Who came and who went, as open pages and the events tell it. Nobody writes a row for silence: somebody must look.

`look` is called every second. A page hears of every change at once, by the board of `activity`. An event is for what
somebody may want to read tomorrow: of a client that is away for good, not of one that was started anew; and one event
for all who went together, so that the loss of a network is not a thousand lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from fednode.central.activity import Activity
from fednode.central.presence import Presence
from fednode.core.records import Offer
from fednode.errors import StoreError
from fednode.ports import Clock
from fednode.store.event_list import BACK, GONE
from fednode.store.sql import SqlStore

RETURN_S = 10.0                 # who said goodbye and is back within this was only started anew


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a list of clients shows of one, besides its work."""

    is_heard: bool
    farewell: str
    offers: tuple[Offer, ...]


class Attendance:
    """The last look, and who is away. `away`: since when (wall seconds), as the events say at the start."""

    def __init__(
        self, store: SqlStore, presence: Presence, activity: Activity, clock: Clock, away: Mapping[str, float]
    ) -> None:
        self._store, self._presence, self._activity, self._clock = store, presence, activity, clock
        self._away = dict(away)
        self._leaving: dict[str, float] = {}            # who said goodbye -> when we saw it
        self._looks: dict[str, Look] = self._look_round()

    async def look(self) -> None:
        """Tell what has changed since the last look."""
        looks = self._look_round()
        changed = [name for name in looks.keys() | self._looks.keys() if looks.get(name) != self._looks.get(name)]
        self._looks = looks
        if changed:
            self._activity.turn(changed)
        with suppress(StoreError):                      # for people only: the list tells it all the same
            await self._tell_gone()
            await self._tell_back()

    def _look_round(self) -> dict[str, Look]:
        presence = self._presence
        return {
            member.name: Look(
                is_heard=presence.is_heard(member.name), farewell=presence.farewell(member.name), offers=member.offers
            )
            for member in presence.members()
        }

    async def _tell_gone(self) -> None:
        gone: dict[str, list[str]] = {}
        for name in self._newly_gone():
            gone.setdefault(self._presence.why_gone(name), []).append(name)
        for reason, names in gone.items():
            await self._store.record_event(GONE, {"clients": names, "reason": reason})
            self._away |= dict.fromkeys(names, self._clock.wall_s())

    def _newly_gone(self) -> list[str]:
        """In name order."""
        now_s = self._clock.now_s()
        silent = [name for name in self._looks if self._presence.is_gone(name) and name not in self._away]
        left = [name for name in silent if self._presence.has_left(name)]
        self._leaving = {name: self._leaving.get(name, now_s) for name in left}
        return [name for name in silent if now_s - self._leaving.get(name, now_s - RETURN_S) >= RETURN_S]

    async def _tell_back(self) -> None:
        names = [name for name in self._looks if name in self._away and self._looks[name].is_heard]
        if names:
            longest_s = self._clock.wall_s() - min(self._away[name] for name in names)
            await self._store.record_event(BACK, {"clients": names, "away_s": round(max(0.0, longest_s), 1)})
            self._away = {name: since_s for name, since_s in self._away.items() if name not in names}
