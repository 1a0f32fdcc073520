"""What a client node is told, and what it tells a person: `ClientSettings` and `Talk`. No behaviour lives here.

`cli` makes the settings from flags and the environment and prints what `Talk` hears; `daemon` reads and calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fednode.core.records import Offer
from fednode.tasks.base import Partition


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """One client node. Complete: no default is looked up later."""

    central: str                            # URL of the central node
    name: str
    data: Path | None                       # the data folder; None: the task knows where to look
    tasks: tuple[str, ...]                  # specs; empty: every installed task whose data check passes
    partition: Partition | None
    offline_sample: bool
    threads: int                            # 0: as many as there are cores
    state_dir: Path
    token: str                              # join token; "": the central node's note on this machine
    ca: Path | None                         # PEM file of the authorities to trust; None: the system's


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training has, as the run asks for it."""

    learning_rate: float
    epochs: int
    batch_size: int


class Talk(Protocol):
    """What a person at the client node should read, as it happens. Called in the event loop: do not block."""

    def offered(self, offers: tuple[Offer, ...], refused: Mapping[str, str]) -> None:
        """The tasks that this site can run; `refused`: spec -> why not (empty where tasks were named)."""
        ...

    def registering(self, url: str) -> None: ...

    def registered(self) -> None: ...

    def waiting(self, reason: str) -> None:
        """The central node is away; it is tried again for ever. Told once each time."""
        ...

    def back(self) -> None:
        """It answers again. Told after `waiting`."""
        ...

    def config(self, config: TrainingConfig) -> None:
        """Told before `training_started`."""
        ...

    def training_started(self, run_number: int, round_number: int, rounds: int) -> None: ...

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch from 1; scores of the client's own model on the site's test split. May hold NaN."""
        ...

    def training_finished(self, num_examples: int) -> None: ...

    def sent(self, num_bytes: int) -> None:
        """An update is safe at the central node."""
        ...

    def dropped(self, reason: str) -> None:
        """What was being trained or sent is not wanted any more: taken back, or too late."""
        ...

    def failed(self, reason: str) -> None:
        """An assignment was refused here or went wrong; the central node was told the same."""
        ...
