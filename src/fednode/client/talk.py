"""What a client node is told, and what it tells a person: `ClientSettings` and `Talk`. No behaviour lives here.

`cli` makes the settings from flags and the environment and prints what `Talk` hears; `daemon` reads and calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fednode.client.approvals import Code
from fednode.core.policy import Policy
from fednode.core.records import Offer
from fednode.tasks.base import Partition, Site
from fednode.wire.messages import AssignmentBody


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
    is_summary_shared: bool = True          # whether offers hold the counts of this site's data
    device: str = "cpu"                     # or cuda, cuda:1, mps; auto: the best that is there
    pin: str = ""                           # PEM of the one certificate to trust where there is no `ca`; "": none
    policy: Policy = field(default_factory=Policy)      # its operator's word

    @property
    def site(self) -> Site:
        """What a task is told of it."""
        return Site(
            client=self.name, data=self.data, partition=self.partition, offline_sample=self.offline_sample,
            threads=self.threads, device=self.device,
        )


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

    def asks(self, codes: tuple[Code, ...]) -> None:
        """What needs the operator's approval, with what they decided so far. Told after `offered`, where that is so."""
        ...

    def registering(self, url: str) -> None: ...

    def registered(self) -> None: ...

    def waiting(self, reason: str) -> None:
        """The central node is away; it is tried again for ever. Told once each time, and where it is not trusted."""
        ...

    def back(self) -> None:
        """It answers again. Told after `waiting`."""
        ...

    def assigned(self, body: AssignmentBody) -> None:
        """Work has come. Whatever end it has, `idle` is told after it."""
        ...

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """What the model that was received achieves on this site's held-out data."""
        ...

    def config(self, config: TrainingConfig) -> None:
        """Told before `training_started`."""
        ...

    def training_started(self, run_number: int, round_number: int, rounds: int) -> None: ...

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch from 1; scores of the client's own model on the site's test split. May hold NaN."""
        ...

    def training_finished(self, num_examples: int) -> None: ...

    def sending(self, assignment: str, num_bytes: int) -> None:
        """An update is on its way, whole or what is left of it."""
        ...

    def sent(self, num_bytes: int) -> None:
        """An update is safe at the central node."""
        ...

    def dropped(self, reason: str) -> None:
        """What was being trained or sent is not wanted any more: taken back, or too late."""
        ...

    def failed(self, reason: str) -> None:
        """An assignment was refused here or went wrong; the central node was told the same."""
        ...

    def idle(self) -> None:
        """Nothing is in work any more."""
        ...

    def paused(self) -> None:
        """No new work is taken: the owner's switch. Told once each time, and at a start that finds it so."""
        ...

    def resumed(self) -> None: ...
