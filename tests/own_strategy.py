"""A strategy of somebody's own, for tests: as a file, and as a package that pip has installed."""

from __future__ import annotations

from pathlib import Path

CLIPPED = """
from dataclasses import dataclass
from typing import Annotated
from pydantic import Field
from fednode import State, Strategy, Updates

@dataclass(frozen=True, kw_only=True)
class ClippedAvg(Strategy):
    limit: Annotated[float, Field(gt=0, description="No param moves by more")] = 1.0

    def aggregate(self, state: State, updates: Updates) -> State:
        change = updates.mean() - state.params
        return State(state.params + change.map(lambda array: array.clip(-self.limit, self.limit)))
"""


def written(folder: Path, text: str = CLIPPED, name: str = "my_strategy.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def installed_in(folder: Path) -> Path:
    """A distribution as pip leaves it, with the entry point `clipped`; to be put on Python's path."""
    written(folder, name="clipping.py")
    info = folder / "clipping-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clipping\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fednode.strategies]\nclipped = clipping:ClippedAvg\n")
    return folder
