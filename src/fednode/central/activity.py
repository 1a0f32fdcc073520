"""What each client is doing at this moment, for people who watch. In memory: after a restart the next report tells.

Nothing decides by it: leases, deadlines and outcomes are in `leases` and the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fednode.central.waiting import Bell
from fednode.core.records import Round
from fednode.ports import Clock

Step: TypeAlias = Literal["preparing", "evaluating", "training", "uploading"]


@dataclass(frozen=True, kw_only=True)
class Doing:
    """A client's step in its assignment."""

    run_id: str
    number: int                         # the round
    step: Step
    since_s: float                      # wall seconds
    epoch: int = 0                      # finished ones, of the round's training
    values: Mapping[str, float] = field(default_factory=dict)      # scores of its own model after that epoch


class Activity:
    """The board: who watches hears the bell, and asks what is new."""

    def __init__(self, clock: Clock) -> None:
        self.bell = Bell()
        self.version = 0
        self._clock = clock
        self._doing: dict[str, Doing] = {}
        self._changed: dict[str, int] = {}

    def note(
        self, client: str, round_: Round, step: Step, *, epoch: int = 0, values: Mapping[str, float] | None = None
    ) -> None:
        """A client's step begins, or an epoch of it has ended."""
        self._doing[client] = Doing(
            run_id=round_.run_id, number=round_.number, step=step, since_s=self._clock.wall_s(), epoch=epoch,
            values=values or {},
        )
        self._ring(client)

    def rest(self, client: str) -> None:
        """Its assignment has ended."""
        if self._doing.pop(client, None):
            self._ring(client)

    def turn(self, clients: Iterable[str]) -> None:
        """Something else of these clients has changed: whether they are there, or what they offer."""
        self._ring(*clients)

    def of(self, client: str, run_id: str = "") -> Doing | None:
        """What it is at; with `run_id` only if it is at that run."""
        doing = self._doing.get(client)
        return doing if doing and run_id in ("", doing.run_id) else None

    def since(self, version: int) -> set[str]:
        """Clients of whom something has changed after `version`."""
        return {client for client, changed in self._changed.items() if changed > version}

    def _ring(self, *clients: str) -> None:
        self.version += 1
        self._changed |= dict.fromkeys(clients, self.version)
        self.bell.ring()
