"""Places at which a process kills itself where its environment says so: how a test reaches any instant of a round.

`FEDNODE_FAILPOINT=update.renamed@3` is `kill -9`, by the process itself, when it comes to the point `update.renamed`
of round 3 for the first time; several are separated by commas. Names are `<thing>.<what has just happened to it>`.
A point that knows no round (those marked *) counts: `model.half_sent@3` is the third time that this process comes by.
A child process has its parent's environment: its points end it alone. Where the variable is not set a point costs one
comparison; a name that is none ends the process at its start, because a fault that never strikes proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

T = TypeVar("T", bytes, memoryview, range, list[str])

VARIABLE = "FEDNODE_FAILPOINT"
FLUSH_S = 0.05                  # what an event loop has to send what it was given

CENTRAL = (
    # at its start, in this order
    "tables.migrating",         # * inside the transaction
    "tables.migrated",          # *
    "leader.written",           # *
    "sweep.half_done",          # * some left-overs are deleted, others not: not reached where there are none
    "store.opened",             # *
    "private_file.written",     # * the tokens (1), the note for this machine (2), then announcements: not yet renamed
    # a run
    "run.written",              # * inside the transaction
    "run.created",              # * nobody was told
    "run.started",              # *
    # a round
    "cohort.written",           # inside the transaction
    "round.opened",
    "assignment.leased",        # the answer has not left
    "model.half_sent",          # *
    "evaluation.written",       # inside the transaction
    "evaluation.committed",     # the answer has not left
    # an update
    "update.announced",         # its announcement is noted, the answer has not left
    "update.begun",             # 0 %
    "update.half_received",     # 50 %
    "update.received",          # 100 %
    "update.fsynced",
    "update.renamed",
    "update.inserted",          # inside the transaction
    "update.committed",         # the answer has not left
    "update.answered",          # the answer has left
    # the end of a round
    "quorum.reached",           # min_updates clients are settled, others not
    "outcomes.collected",
    "round.frozen",             # inside the transaction; not yet committed in it
    "round.closed",             # committed apart: only where somebody is missing
    "state.aggregated",
    "checkpoint.written",       # * the model's file, not yet renamed
    "checkpoint.renamed",       # *
    "memory.renamed",           # * of strategies that have a memory
    "checkpoint.inserted",      # inside the transaction
    "round.written",            # inside the transaction, at its end
    "round.committed",          # what nobody needs any more still lies there
    "round.abandoned",          # too few updates
    "round.tidied",
    # the end of a run
    "run.ending",               # * inside the transaction
    "run.ended",                # * committed
    "run.deleting",             # * inside the transaction
    "run.deleted",              # * its files are still there
    # the end of the process
    "doors.closed",             # * told to stop: polls are answered, nothing is put away yet
)

CLIENT = (
    # at its start, in this order
    "key.made",                 # * not written yet
    "key.written",              # *
    "tasks.offered",            # * the child has checked the data
    "secret.received",          # * not written yet
    "secret.written",           # *
    "central.joined",           # *
    # an assignment
    "order.received",
    "model.half_fetched",       # *
    "model.fetched",
    "model.evaluated",          # nobody was told
    "evaluation.told",
    "epoch.told",               # in the middle of training
    "visit.done",               # the child has answered, the update is not saved
    "update.saved",             # it survives this process
    "update.sending",           # * it is announced, 0 % are sent
    "update.half_sent",         # *
    "update.sent",              # * 100 %, no answer yet
    "update.arrived",           # answered, and still in the outbox
    "update.dropped",           # from the outbox
    # in the child: these end it alone
    "epoch.trained",
    "update.trained",           # nothing is written
    "update.written",           # the client node was not told
)


def _read(text: str) -> frozenset[str]:
    armed = frozenset(filter(None, text.split(",")))
    for point in armed:
        name, _, number = point.partition("@")
        if name not in CENTRAL + CLIENT or not number.isdecimal():
            sys.exit(f"{VARIABLE}: {point!r} is no point to fail at; write NAME@NUMBER, names are in {__file__}")
    return armed


_armed = _read(os.environ.get(VARIABLE, ""))
_num_times: Counter[str] = Counter()


def reach(name: str, number: int | None = None) -> None:
    """Die here, if this point of round `number` is armed; without one, if this time of coming by is."""
    if _armed and _is_due(name, number):
        _die()


def halves(body: T, name: str, number: int | None = None) -> Iterator[T]:
    """`body`, whole; where this point is armed its first half, and death when the second one is asked for."""
    if _armed and len(body) > 1 and _is_due(name, number):
        yield body[: len(body) // 2]
        _die()
    yield body


def in_halves(pieces: Iterable[T], name: str, number: int | None = None) -> Iterator[T]:
    """`pieces`; each is a time of coming by."""
    return chain.from_iterable(halves(piece, name, number) for piece in pieces)


async def reach_after_sending(name: str, number: int | None = None) -> None:
    """`reach`, once everything has left that this event loop was given to send."""
    if _armed and _is_due(name, number):
        asyncio.get_running_loop().call_later(FLUSH_S, _die)
        await asyncio.Event().wait()


def _is_due(name: str, number: int | None) -> bool:
    if number is None:
        _num_times[name] += 1
        number = _num_times[name]
    return f"{name}@{number}" in _armed


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
