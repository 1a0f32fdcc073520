"""The desk at which work is posted and leased: what `fleet` hangs out, and what a client's poll takes.

In memory: which rounds are open, and what was reported, is in the store, and after a restart `fleet` posts again. A
client works on one assignment at a time, the one posted first. A poll that does not name its leased assignment as
being held gets it again at once: the answer was lost, or the client began anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

from fednode.central.waiting import Bell
from fednode.core.records import Assignment, Round, Run
from fednode.core.status import AssignmentStatus
from fednode.ports import Clock

RoundKey: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Post:
    """One client's work in an open round."""

    run: Run
    round: Round
    client: str
    num_leases: int = 0
    lease_until_s: float = 0.0          # up to then the client is busy with it

    @property
    def id(self) -> str:
        return assignment_id(self.round)

    @property
    def assignment(self) -> Assignment:
        """It, as the store knows it, but for the deliveries."""
        status = AssignmentStatus.LEASED if self.num_leases else AssignmentStatus.WAITING
        return Assignment(
            run_id=self.round.run_id, number=self.round.number, attempt=self.round.attempt, client=self.client,
            kind=self.round.kind, status=status,
        )


class Leases:
    """All posts of this central node."""

    def __init__(self, clock: Clock, *, lease_s: float = 60.0) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._posts: dict[str, list[Post]] = {}                     # by client, in the order of posting
        self._unsettled: dict[RoundKey, dict[str, None]] = {}       # of posted rounds, in the cohort's order
        self._ahead: defaultdict[RoundKey, set[str]] = defaultdict(set)     # settled before their round was posted
        self._client_bells: defaultdict[str, Bell] = defaultdict(Bell)
        self._round_bells: defaultdict[RoundKey, Bell] = defaultdict(Bell)

    def post(self, run: Run, round_: Round, settled: Collection[str]) -> None:
        """Hang out the round's work for everybody who is not settled, and wake those who wait for work."""
        done = {*settled, *self._ahead.pop(key_of(round_), ())}
        self._unsettled[key_of(round_)] = dict.fromkeys(name for name in round_.cohort if name not in done)
        for client in self._unsettled[key_of(round_)]:
            self._posts.setdefault(client, []).append(Post(run=run, round=round_, client=client))
            self._client_bells[client].ring()

    def settle(self, round_: Round, client: str) -> None:
        """The store has this client's outcome."""
        if (unsettled := self._unsettled.get(key_of(round_))) is None:
            self._ahead[key_of(round_)].add(client)
            return
        unsettled.pop(client, None)
        self._drop(round_, client)
        self._round_bells[key_of(round_)].ring()

    def take_back(self, round_: Round) -> None:
        """The round is over, or halted: whoever still holds a piece of it hears so."""
        for client in self._unsettled.pop(key_of(round_), ()):
            self._drop(round_, client)
            self._client_bells[client].ring()
        self._ahead.pop(key_of(round_), None)
        self._round_bells.pop(key_of(round_), None)

    def unsettled(self, round_: Round) -> Collection[str]:
        """In the cohort's order. Not to be kept: it shrinks."""
        return self._unsettled.get(key_of(round_), {}).keys()

    def lease(self, client: str) -> Post | None:
        """The client's first post, leased to it from now on; None where there is none."""
        posts = self._posts.get(client)
        if not posts:
            return None
        posts[0] = self._leased(posts[0], num_new=1)
        return posts[0]

    def renew(self, client: str, assignment: str) -> bool:
        """Whether the client may go on with what it holds."""
        post = self.find(client, assignment)
        if post is None:
            return False
        posts = self._posts[client]
        posts[posts.index(post)] = self._leased(post, num_new=0)
        return True

    def find(self, client: str, assignment: str) -> Post | None:
        """The client's post of this id, as long as its round waits for it: what it brings is news then."""
        return next((post for post in self._posts.get(client, ()) if post.id == assignment), None)

    def is_busy(self, client: str) -> bool:
        now_s = self._clock.now_s()
        return any(post.lease_until_s > now_s for post in self._posts.get(client, []))

    def client_bell(self, client: str) -> Bell:
        """Rings when there is something new for this client."""
        return self._client_bells[client]

    def round_bell(self, round_: Round) -> Bell:
        """Rings when one more of the cohort is settled."""
        return self._round_bells[key_of(round_)]

    def wake_all(self) -> None:
        for bell in self._client_bells.values():
            bell.ring()

    def _leased(self, post: Post, *, num_new: int) -> Post:
        until_s = self._clock.now_s() + self._lease_s
        return replace(post, num_leases=post.num_leases + num_new, lease_until_s=until_s)

    def _drop(self, round_: Round, client: str) -> None:
        kept = [post for post in self._posts.get(client, []) if key_of(post.round) != key_of(round_)]
        if kept:
            self._posts[client] = kept
        else:
            self._posts.pop(client, None)


def key_of(round_: Round) -> RoundKey:
    return (round_.run_id, round_.number, round_.attempt)


def assignment_id(round_: Round) -> str:
    """`<run id>.<round>.<attempt>`: unique for the client that asks."""
    return f"{round_.run_id}.{round_.number}.{round_.attempt}"
