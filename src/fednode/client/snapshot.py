"""What a client node is doing, as one frozen value: `Snapshot`. `Watcher` makes a new one of everything that is told.

State flows one way: the daemon tells a `Talk`, the watcher is one (and passes everything on to the next), and `page`
shows what it kept. What left this machine is in `ledger`, the owner's switch in `sharing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fednode.client.approvals import Code
from fednode.client.talk import Talk, TrainingConfig
from fednode.core.records import Offer
from fednode.core.status import RoundKind
from fednode.ports import Clock
from fednode.wire.messages import AssignmentBody

MAX_LINES = 200
MAX_DONE = 20


class Step(StrEnum):
    """Where an assignment stands."""

    RECEIVING = "receiving"         # the model
    EVALUATING = "evaluating"       # what was received, on this site's held-out data; for `init`: making the params
    TRAINING = "training"
    SENDING = "sending"


@dataclass(frozen=True, kw_only=True)
class Errand:
    """The assignment in work, or one that ended."""

    id: str
    task: str
    kind: RoundKind
    run: int                        # its number
    round: int
    rounds: int
    began_s: float                  # wall time
    step: Step = Step.RECEIVING
    epoch: int = 0                  # the last one that ended
    epochs: int = 0
    received: Mapping[str, float] = field(default_factory=dict)     # scores of the model that came, on this site's data
    own: Mapping[str, float] = field(default_factory=dict)          # of the client's own model after the last epoch
    num_bytes: int = 0              # of its update
    ended_s: float = 0.0
    end: str = ""                   # one sentence; "" while it is in work


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The whole of it. Times are wall times."""

    name: str
    central: str                    # URL
    started_s: float
    is_registered: bool = False
    away_since_s: float = 0.0       # 0: the central node answers, or was not asked yet
    away_reason: str = ""
    offers: tuple[Offer, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)        # spec -> why it is not offered
    codes: tuple[Code, ...] = ()    # that need the operator's approval, as they stood when it was last looked
    errand: Errand | None = None
    done: tuple[Errand, ...] = ()   # newest first


@dataclass(frozen=True)
class Line:
    """A line that the client said on its terminal."""

    at_s: float
    text: str


class Transcript:
    """The last lines that were said."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)

    def keep(self, text: str) -> None:
        self._lines.append(Line(self._clock.wall_s(), text))

    @property
    def lines(self) -> tuple[Line, ...]:
        """Oldest first."""
        return tuple(self._lines)


class Watcher:
    """A `Talk` between the daemon and another: it keeps the snapshot, and passes on what it hears."""

    def __init__(self, name: str, central: str, after: Talk, clock: Clock) -> None:
        self.snapshot = Snapshot(name=name, central=central, started_s=clock.wall_s())
        self._after = after
        self._clock = clock

    def offered(self, offers: tuple[Offer, ...], refused: Mapping[str, str]) -> None:
        self._renew(offers=offers, refused=dict(refused))
        self._after.offered(offers, refused)

    def asks(self, codes: tuple[Code, ...]) -> None:
        self._renew(codes=codes)
        self._after.asks(codes)

    def registering(self, url: str) -> None:
        self._after.registering(url)

    def registered(self) -> None:
        self._renew(is_registered=True)
        self._after.registered()

    def waiting(self, reason: str) -> None:
        self._renew(away_since_s=self._clock.wall_s(), away_reason=reason)
        self._after.waiting(reason)

    def back(self) -> None:
        self._renew(away_since_s=0.0, away_reason="")
        self._after.back()

    def assigned(self, body: AssignmentBody) -> None:
        step = Step.RECEIVING if body.base_model else Step.EVALUATING
        self._renew(errand=Errand(
            id=body.id, task=body.task, kind=body.kind, run=body.run_number, round=body.number, rounds=body.rounds,
            began_s=self._clock.wall_s(), step=step,
        ))
        self._after.assigned(body)

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        self._errand(received=dict(metrics))
        self._after.evaluated(metrics)

    def config(self, config: TrainingConfig) -> None:
        self._errand(epochs=config.epochs)
        self._after.config(config)

    def training_started(self, run_number: int, round_number: int, rounds: int) -> None:
        self._errand(step=Step.EVALUATING)
        self._after.training_started(run_number, round_number, rounds)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._errand(step=Step.TRAINING, epoch=epoch, own=dict(metrics))
        self._after.epoch(epoch, metrics)

    def training_finished(self, num_examples: int) -> None:
        self._after.training_finished(num_examples)

    def sending(self, assignment: str, num_bytes: int) -> None:
        self._errand(step=Step.SENDING, num_bytes=num_bytes)
        self._after.sending(assignment, num_bytes)

    def sent(self, num_bytes: int) -> None:
        self._errand(end="sent")
        self._after.sent(num_bytes)

    def dropped(self, reason: str) -> None:
        self._errand(end=f"not wanted any more: {reason}")
        self._after.dropped(reason)

    def failed(self, reason: str) -> None:
        self._errand(end=f"failed: {reason}")
        self._after.failed(reason)

    def idle(self) -> None:
        errand = self.snapshot.errand
        if errand is not None:
            ended = replace(errand, ended_s=self._clock.wall_s(), end=errand.end or "evaluated")
            self._renew(errand=None, done=(ended, *self.snapshot.done)[:MAX_DONE])
        self._after.idle()

    def paused(self) -> None:
        self._after.paused()

    def resumed(self) -> None:
        self._after.resumed()

    def _errand(self, **changes: Any) -> None:
        """What is left from an earlier process is sent without being in work: it changes nothing here."""
        if self.snapshot.errand is not None:
            self._renew(errand=replace(self.snapshot.errand, **changes))

    def _renew(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, **changes)
