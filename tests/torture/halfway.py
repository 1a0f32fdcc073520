"""FedAvg whose process dies half way through the columns of the updates, in the round that its environment names."""

from __future__ import annotations

from pathlib import Path

VARIABLE = "DIES_HALF_WAY_IN_ROUND"

SOURCE = """
import os
import signal
from collections import Counter
from dataclasses import dataclass
from fednode import State, Strategy, Updates

num_calls = Counter()           # by process: one forks from another

@dataclass(frozen=True, kw_only=True)
class Halfway(Strategy):
    def aggregate(self, state: State, updates: Updates) -> State:
        num_calls[os.getpid()] += 1
        if os.environ.get("DIES_HALF_WAY_IN_ROUND") == str(num_calls[os.getpid()]):
            columns = list(updates.columns())
            assert len(columns) > 1
            updates._held_columns = lambda num_elements: dying(columns)     # what the mean walks over
        return State(updates.mean())

def dying(columns):
    yield from columns[: len(columns) // 2]
    os.kill(os.getpid(), signal.SIGKILL)
"""


def installed_in(folder: Path) -> Path:
    """As pip leaves it, under the name `halfway`; to be put on Python's path."""
    info = folder / "halfway-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "going_halfway.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fednode.strategies]\nhalfway = going_halfway:Halfway\n")
    return folder
