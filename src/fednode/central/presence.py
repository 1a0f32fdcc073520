"""Who of the federation is enrolled, and who of them is there, as this process knows it.

In memory: the store keeps who is enrolled and when they were last seen; that a client is gone is found out anew after
a start. Nobody is gone before `gone_after_s` of up-time have passed since then. Who reads it: `fleet`, `runs`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fednode.central.waiting import UpTime
from fednode.core.encoding import F32
from fednode.core.records import Offer, RunConfig
from fednode.ports import Clock


@dataclass(frozen=True, kw_only=True)
class Member:
    """An enrolled client that nobody revoked."""

    name: str
    offers: tuple[Offer, ...] = ()
    last_seen_s: float = 0.0            # wall time


class Presence:
    """Enrolled clients, and when each was heard of. Every authenticated request of a client is a sign of life."""

    def __init__(self, clock: Clock, *, gone_after_s: float = 60.0) -> None:
        self.gone_after_s = gone_after_s
        self.uptime = UpTime(clock)
        self._clock = clock
        self._started_s = self.uptime.now_s()
        self._members: dict[str, Member] = {}
        self._heard_s: dict[str, float] = {}        # up-time; absent: not since the start, or it said goodbye
        self._left: dict[str, str] = {}             # who said goodbye -> why, "" where it did not say
        self._finishing: set[str] = set()           # who says goodbye as soon as what it holds is done
        self._unsaved: set[str] = set()

    def enrol(self, member: Member) -> None:
        """A new member, or what it offers now."""
        self._members[member.name] = member

    def strike(self, name: str) -> None:
        """It was revoked: no member any more."""
        self._members.pop(name, None)

    def heard(self, name: str) -> None:
        if name not in self._members:
            return
        self._heard_s[name] = self.uptime.now_s()
        self._left.pop(name, None)
        self._members[name] = replace(self._members[name], last_seen_s=self._clock.wall_s())
        self._unsaved.add(name)

    def leave(self, name: str, reason: str = "") -> None:
        """It said goodbye: gone at once."""
        self._finishing.discard(name)
        self._left[name] = reason

    def finish(self, name: str) -> None:
        """It ends what it holds and wants nothing after that: still awaited, selected no more."""
        self._finishing.add(name)

    def wants_work(self, name: str) -> None:
        """Whatever it said before, it is here for more."""
        self._finishing.discard(name)

    def is_there(self, name: str) -> bool:
        """Heard of lately, and here for work."""
        return self.is_heard(name) and name not in self._finishing

    def is_heard(self, name: str) -> bool:
        return name in self._heard_s and not self.is_gone(name)

    def is_awaited(self, name: str) -> bool:
        """Not heard of since the start of this process, and not yet for too long."""
        return not self.is_gone(name) and name not in self._heard_s

    def is_gone(self, name: str) -> bool:
        """Unheard of for too long. Right after a start somebody may be neither there nor gone."""
        last_s = max(self._heard_s.get(name, self._started_s), self._started_s)
        silent_s = self.uptime.now_s() - last_s
        return name not in self._members or name in self._left or silent_s >= self.gone_after_s

    def has_left(self, name: str) -> bool:
        """It said goodbye, and was not heard of since."""
        return name in self._left

    def why_gone(self, name: str) -> str:
        """One sentence for the round's record."""
        if name not in self._members:
            return "was revoked"
        if name in self._left:
            return self._left[name] or "was stopped"
        return f"unheard of for {self.gone_after_s:g} s"

    def farewell(self, name: str) -> str:
        """The reason that it gave when it left; "" where it is here, or gave none."""
        return self._left.get(name, "")

    def gone_since(self, name: str) -> str:
        """`hospital-b gone since 02:14`, in this machine's local time, with the date where it is not today's.

        Who gave a reason when it left is told by that: `hospital-b: sharing paused by its owner`.
        """
        if reason := self.farewell(name):
            return f"{name}: {reason}"
        if name not in self._members or not self._members[name].last_seen_s:
            return f"{name} never seen"
        seen = _local(self._members[name].last_seen_s)
        is_today = seen.date() == _local(self._clock.wall_s()).date()
        return f"{name} gone since {seen:%H:%M}" if is_today else f"{name} gone since {seen:%Y-%m-%d %H:%M}"

    def last_seen_s(self, name: str) -> float:
        """Wall time; 0 where it is no member, or never was here."""
        return self._members[name].last_seen_s if name in self._members else 0.0

    def members(self) -> list[Member]:
        """In name order."""
        return [self._members[name] for name in sorted(self._members, key=str.encode)]

    def roster(self, config: RunConfig) -> list[str]:
        """The clients of a run as of now, in name order: those that it names, else whoever offers its task."""
        return [m.name for m in self.members() if _takes_part(m, config)]

    def missing(self, config: RunConfig) -> Collection[str]:
        """Clients that the run names and that do not offer its task (any more)."""
        return sorted(set(config.clients) - set(self.roster(config)), key=str.encode)

    def take_unsaved(self) -> dict[str, float]:
        """Who was heard of since the last call, and when (wall seconds)."""
        names, self._unsaved = self._unsaved, set()
        return {name: self._members[name].last_seen_s for name in names if name in self._members}


def clock_time(wall_s: float) -> str:
    """`02:14`, in this machine's local time."""
    return f"{_local(wall_s):%H:%M}"


def _local(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, tz=UTC).astimezone()


def _takes_part(member: Member, config: RunConfig) -> bool:
    if config.clients and member.name not in config.clients:
        return False
    return any(
        (o.task, o.fingerprint) == (config.task, config.fingerprint) and knows(o, config.encoding)
        for o in member.offers
    )


def knows(offer: Offer, encoding: str) -> bool:
    """Whether the client that offers this can take part in a run whose params travel so."""
    return encoding == F32 or encoding in offer.supports
