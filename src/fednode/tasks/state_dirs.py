"""What a task keeps at a client from round to round of a run: `<folder>/<run>/<round>/`, one folder a round.

A visit of round r finds a copy of what the last visit before r left, and what it leaves takes its place in the list
once its update is reported. So a visit that is repeated, because its process died or its attempt failed, begins where
the first one began, and gives the same bits. Which folder a visit works in is its caller's affair: `client/outbox.py`
of a client node, `simulation/fleet.py` of a simulated one.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fednode.wire.codec import disk_errors
from fednode.wire.durable import fsync

ROUNDS_KEPT = 2                 # of a run: the last, and the one that a repeated visit of the last begins from


@dataclass(frozen=True, kw_only=True)
class StateDir:
    """The state dir of one visit: it is made when the task first asks for it."""

    folder: Path
    before: Path | None = None      # what the last visit left; None: nothing

    def open(self) -> Path:
        """The folder. Raises StoreFull, StoreError."""
        with disk_errors(self.folder):
            if self.before is not None and not self.folder.exists():
                shutil.copytree(self.before, self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder


class StateDirs:
    """All that one client keeps, of every run."""

    def __init__(self, folder: Path, *, is_durable: bool = True) -> None:
        """`is_durable`: what is kept survives a loss of power."""
        self._folder = folder
        self._is_durable = is_durable

    def before(self, run_id: str, number: int) -> Path | None:
        """What the last visit before round `number` left; None where none left anything."""
        rounds = [kept for kept in self._rounds(run_id) if kept < number]
        return self._folder / run_id / str(rounds[-1]) if rounds else None

    def keep(self, run_id: str, number: int, left: Path) -> None:
        """What the visit of round `number` left in the folder `left`, of which the update is reported, counts now.

        Where there is no such folder, it left nothing new, or that is kept already. Raises StoreFull, StoreError.
        """
        if not left.is_dir():
            return
        target = self._folder / run_id / str(number)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            left.replace(target)
            for folder in (target.parent, self._folder, self._folder.parent) if self._is_durable else ():
                fsync(folder)
        for old in self._rounds(run_id):
            if old > number or old not in self._rounds(run_id)[-ROUNDS_KEPT:]:      # one behind it was never committed
                shutil.rmtree(target.with_name(str(old)), ignore_errors=True)

    def sweep(self, runs: Collection[str]) -> None:
        """Delete what is kept of all runs but these."""
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name not in runs:
                shutil.rmtree(folder, ignore_errors=True)

    def _rounds(self, run_id: str) -> list[int]:
        folder = self._folder / run_id
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdecimal())


def fsync_all(folder: Path) -> None:
    """Wait until all that lies in a folder, and its own name, survive a loss of power."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        if not path.is_symlink():
            fsync(path)
