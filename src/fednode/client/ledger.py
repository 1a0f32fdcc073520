"""What has left this machine since the client node's first start, in bytes: `sent.jsonl` in its state dir.

Bytes are counted as they are handed to the network, each piece before it leaves, and so also those of a try that
failed; an update counts once, when the central node has said that it has it. A line is written for each; the first
line of the file is the sum of those before. `kill -9` costs no line: it may leave one that counts a piece (4 MiB at
most) which did not get out. Headers and addresses of requests are not counted: ids and the client's secret.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fednode.client.identity import OWNER_ONLY_FILE, write_private
from fednode.errors import StoreError
from fednode.ports import Clock

MAX_RECENT = 50
MAX_LINES = 1_000               # then they are summed up
PARAMS = "params"
_OF_ASSIGNMENT = re.compile(r".*/assignments/([^/]+)/(\w+)")
_WHATS = {
    ("POST", "metrics"): "scores", ("POST", "update"): "announcement", ("POST", "failure"): "failure",
    ("PUT", "me"): "offers", ("POST", "clients"): "registration", ("POST", "leave"): "goodbye",
    ("POST", "nonces"): "registration",
}


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What left for one purpose: of one assignment, or outside any."""

    what: str                       # params, scores, announcement, failure, offers, registration, goodbye
    at_s: float                     # wall time of its last piece
    num_bytes: int
    assignment: str = ""            # its id
    run: int = 0                    # the run's number; 0: not known
    digest: str = ""                # xxh3-128 of an update that has arrived

    @property
    def round(self) -> int | None:
        parts = self.assignment.split(".")
        return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else None

    @property
    def has_arrived(self) -> bool:
        """Of an update: whether the central node has said so."""
        return self.digest != ""


@dataclass(frozen=True, kw_only=True)
class Left:
    """Everything that left: sums, and the last sendings. Images and labels have no field: no code here sends any."""

    since_s: float
    params_bytes: int = 0
    other_bytes: int = 0            # scores, announcements, offers, failures: all that is JSON
    num_updates: int = 0            # that have arrived, each once
    recent: tuple[Sending, ...] = field(default=())     # newest first

    def after(self, sending: Sending) -> Left:
        """It, and one more piece."""
        known = self._like(sending)
        if known is not None:
            merged = replace(known, at_s=sending.at_s, num_bytes=known.num_bytes + sending.num_bytes)
        else:
            merged = replace(sending, run=sending.run or self._run_of(sending.assignment))
        is_params = sending.what == PARAMS
        return replace(
            self, recent=(merged, *(old for old in self.recent if old is not known))[:MAX_RECENT],
            params_bytes=self.params_bytes + sending.num_bytes * is_params,
            other_bytes=self.other_bytes + sending.num_bytes * (not is_params),
        )

    def arrived(self, sending: Sending) -> Left:
        """It, with the central node's word for an update (`num_bytes` 0); a word that comes twice counts once."""
        known = self._like(sending)
        if known is not None and known.has_arrived:
            return self
        told = self.after(sending)
        newest, *others = told.recent
        marked = replace(newest, digest=sending.digest)
        return replace(told, recent=(marked, *others), num_updates=self.num_updates + 1)

    def _like(self, new: Sending) -> Sending | None:
        """What left before for the same purpose."""
        if not new.assignment:
            return None
        return next((old for old in self.recent if (old.what, old.assignment) == (new.what, new.assignment)), None)

    def _run_of(self, assignment: str) -> int:
        """As an earlier sending of the same run has it: an update that the last process left behind has only its id."""
        run_id = assignment.split(".")[0]
        return next((old.run for old in self.recent if assignment and old.assignment.split(".")[0] == run_id), 0)


class Ledger:
    """The file, and the sums. May be called from any thread."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        """Raises StoreFull, StoreError."""
        self._path = state_dir / "sent.jsonl"
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, int] = {}             # by assignment, the number of its run
        self._left = _read(self._path, clock.wall_s())
        self.trouble = ""                           # why the file is behind the sums; "" where it is not
        self._sum_up()

    @property
    def left(self) -> Left:
        return self._left

    def knows(self, assignment: str, run: int) -> None:
        """What is sent for this assignment from now on is of the run of that number."""
        self._runs = {assignment: run}

    def leaves(self, method: str, path: str, num_bytes: int) -> None:
        """A `wire.transfers.Door`."""
        found = _OF_ASSIGNMENT.fullmatch(path)
        assignment = found[1] if found else ""
        is_update = method == "PUT" and not path.endswith("/me")
        what = PARAMS if is_update else _WHATS.get((method, path.rpartition("/")[2]), path.rpartition("/")[2])
        self._note(Sending(
            what=what, at_s=self._clock.wall_s(), num_bytes=num_bytes, assignment=assignment,
            run=self._runs.get(assignment, 0),
        ))

    def arrived(self, assignment: str, digest: str) -> None:
        """The central node has this update."""
        self._note(Sending(
            what=PARAMS, at_s=self._clock.wall_s(), num_bytes=0, assignment=assignment, digest=digest,
            run=self._runs.get(assignment, 0),
        ))

    def _note(self, sending: Sending) -> None:
        """Where the disk cannot be written, the sums go on in memory and are written when it can."""
        with self._lock:
            self._left = _with(self._left, sending)
            self._num_lines += 1
            try:
                if self.trouble or self._num_lines > MAX_LINES:
                    self._sum_up()
                else:
                    _append(self._path, asdict(sending))
                self.trouble = ""
            except (OSError, StoreError) as error:
                self.trouble = str(error)

    def _sum_up(self) -> None:
        self._num_lines = 0
        write_private(self._path, _line(asdict(self._left)))


def _with(left: Left, sending: Sending) -> Left:
    return left.arrived(sending) if sending.digest else left.after(sending)


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """In one write at the end of the file: a killed process leaves the line whole, or not at all."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY_FILE)
    try:
        os.write(file, _line(row))
    finally:
        os.close(file)


def _read(path: Path, now_s: float) -> Left:
    """What the file tells; a line that makes no sense (a power loss) is passed over."""
    left = Left(since_s=now_s)
    rows = path.read_bytes().splitlines() if path.exists() else []
    for number, row in enumerate(rows):
        try:
            fields = json.loads(row)
            left = _sum_of(fields) if number == 0 else _with(left, Sending(**fields))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return left


def _sum_of(fields: dict[str, Any]) -> Left:
    return Left(**(fields | {"recent": tuple(Sending(**row) for row in fields["recent"])}))
