"""Statuses and their legal moves. A status that cannot move is final."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from fednode.errors import IllegalMove


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RoundStatus(StrEnum):
    OPEN = "open"
    CLOSED = "closed"           # its outcomes are frozen
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class AssignmentStatus(StrEnum):
    WAITING = "waiting"
    LEASED = "leased"
    REPORTED = "reported"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


class ClientStatus(StrEnum):
    ONLINE = "online"
    BUSY = "busy"
    GONE = "gone"
    REVOKED = "revoked"


class RoundKind(StrEnum):
    INIT = "init"               # round 0: one client makes the initial params
    TRAIN = "train"             # evaluate what came, train, report
    EVALUATE = "evaluate"       # the last: the whole roster measures the final model


class FailureCode(StrEnum):
    DEADLINE = "deadline"       # there, but not done in time
    GONE = "gone"               # unheard of for too long
    REFUSED = "refused"         # what it sent cannot be taken
    TASK_ERROR = "task_error"   # the task's code raised, hung or died
    WITHDRAWN = "withdrawn"     # taken back by a person


_R, _O, _A = RunStatus, RoundStatus, AssignmentStatus
MOVES: dict[StrEnum, frozenset[StrEnum]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.PAUSED, _R.CANCELLED, _R.FAILED}),
    _R.RUNNING: frozenset({_R.PAUSED, _R.COMPLETED, _R.FAILED, _R.CANCELLED}),
    _R.PAUSED: frozenset({_R.QUEUED, _R.CANCELLED}),
    _R.COMPLETED: frozenset(),
    _R.FAILED: frozenset(),
    _R.CANCELLED: frozenset(),
    _O.OPEN: frozenset({_O.CLOSED, _O.COMMITTED, _O.ABANDONED}),
    _O.CLOSED: frozenset({_O.COMMITTED, _O.ABANDONED}),
    _O.COMMITTED: frozenset(),
    _O.ABANDONED: frozenset(),
    _A.WAITING: frozenset({_A.LEASED, _A.REPORTED, _A.FAILED, _A.WITHDRAWN}),
    _A.LEASED: frozenset({_A.REPORTED, _A.FAILED, _A.WITHDRAWN}),
    _A.WITHDRAWN: frozenset({_A.WAITING, _A.FAILED}),       # a paused run that is resumed leases it again
    _A.REPORTED: frozenset(),
    _A.FAILED: frozenset(),
}

S = TypeVar("S", RunStatus, RoundStatus, AssignmentStatus)


def is_final(status: RunStatus | RoundStatus | AssignmentStatus) -> bool:
    return not MOVES[status]


def move(what: str, old: S, new: S) -> S:
    """`new`, where `old` may become it. Raises IllegalMove."""
    if new in MOVES[old]:
        return new
    legal = ", ".join(sorted(MOVES[old])) or "nothing: it has ended"
    raise IllegalMove(f"{what} is {old} and cannot become {new}", fix=f"from {old} it can become: {legal}")
