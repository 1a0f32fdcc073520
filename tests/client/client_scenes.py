"""A client node under a test's eyes, and what a person at it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fednode.client.approvals import Code
from fednode.client.talk import ClientSettings, TrainingConfig
from fednode.core.records import Offer
from fednode.tasks.registry import load_task
from fednode.wire.messages import AssignmentBody

TASK = f"{Path(__file__).with_name('small_task.py')}:Small"
FINGERPRINT = load_task(TASK).fingerprint


@dataclass
class Heard:
    """A `Talk` that keeps what it was told, a line each."""

    lines: list[str] = field(default_factory=list)

    def offered(self, offers: tuple[Offer, ...], refused: Mapping[str, str]) -> None:
        self.lines.append(f"offered {[offer.task for offer in offers]} refused {sorted(refused)}")

    def asks(self, codes: tuple[Code, ...]) -> None:
        self.lines.append(f"asks {[f'{code.task} {code.verdict}' for code in codes]}")

    def registering(self, url: str) -> None:
        self.lines.append("registering")

    def registered(self) -> None:
        self.lines.append("registered")

    def waiting(self, reason: str) -> None:
        self.lines.append("waiting")

    def back(self) -> None:
        self.lines.append("back")

    def assigned(self, body: AssignmentBody) -> None: ...

    def evaluated(self, metrics: Mapping[str, float]) -> None: ...

    def config(self, config: TrainingConfig) -> None:
        self.lines.append(f"config {config.learning_rate} {config.epochs} {config.batch_size}")

    def training_started(self, run_number: int, round_number: int, rounds: int) -> None:
        self.lines.append(f"started #{run_number} {round_number}/{rounds}")

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.lines.append(f"epoch {epoch} {metrics['accuracy']}")

    def training_finished(self, num_examples: int) -> None:
        self.lines.append(f"finished {num_examples}")

    def sending(self, assignment: str, num_bytes: int) -> None: ...

    def sent(self, num_bytes: int) -> None:
        self.lines.append("sent")

    def dropped(self, reason: str) -> None:
        self.lines.append(f"dropped {reason}")

    def failed(self, reason: str) -> None:
        self.lines.append(f"failed {reason}")

    def idle(self) -> None: ...

    def paused(self) -> None:
        self.lines.append("paused")

    def resumed(self) -> None:
        self.lines.append("resumed")

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.lines)


@dataclass
class Node:
    """A client node that runs in this event loop; leaving its context cancels it, as Ctrl-C does."""

    settings: ClientSettings
    heard: Heard = field(default_factory=Heard)
    life: asyncio.Task[None] | None = None

    @property
    def visits(self) -> list[str]:
        """What its task did, in order: "train 1", ..."""
        log = self.settings.data / "visits.log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def outbox(self) -> list[str]:
        folder = self.settings.state_dir / "outbox"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    async def until(self, line: str, count: int = 1) -> None:
        """Until a person has read a line that starts so, `count` times."""
        async with asyncio.timeout(60):
            while self.heard.count(line) < count:
                assert self.life is not None
                if self.life.done():
                    self.life.result()
                await asyncio.sleep(0.01)
