"""What the client's own page says, in words and numbers, made of the snapshot, the ledger and the switch.

No web framework and no HTML: the same `View` fills the templates and `/status.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from fednode.client.approvals import Review, Verdict
from fednode.client.ledger import PARAMS, Left
from fednode.client.sharing import Switch
from fednode.client.snapshot import Errand, Line, Snapshot, Step
from fednode.core.data_summary import DataSummary
from fednode.core.json import finite
from fednode.core.policy import Policy
from fednode.core.records import Offer
from fednode.core.status import RoundKind


@dataclass(frozen=True, kw_only=True)
class Status:
    """At a glance. `code` is for programs and colours, `text` for people."""

    code: str                       # starting, away, busy, paused, waiting (for an approval), online
    text: str
    detail: str = ""
    since_s: float = 0.0            # wall time; 0: not known


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the work, and whether it lies behind (`done`), is under way (`now`) or is still to come (`next`)."""

    name: str
    state: str


STAGES = {
    RoundKind.INIT: {Step.EVALUATING: "make the first params", Step.SENDING: "send them"},
    RoundKind.TRAIN: {
        Step.RECEIVING: "receive the model", Step.EVALUATING: "evaluate it here", Step.TRAINING: "train",
        Step.SENDING: "send the update",
    },
    RoundKind.EVALUATE: {Step.RECEIVING: "receive the model", Step.EVALUATING: "evaluate it here"},
}


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that is shown, as of now."""

    snapshot: Snapshot
    lines: tuple[Line, ...]
    left: Left
    ledger_trouble: str
    switch: Switch
    now_s: float                    # wall time
    policy: Policy
    reviews: tuple[Review, ...] = ()        # of what needs the operator's approval

    @property
    def status(self) -> Status:
        """The first of these that holds: cannot reach the central node, at work, paused, starting, waiting, online."""
        snapshot, errand = self.snapshot, self.snapshot.errand
        if snapshot.away_since_s:
            return Status(
                code="away", text="Cannot reach the central node", detail=snapshot.away_reason,
                since_s=snapshot.away_since_s,
            )
        if errand is not None:
            return Status(code="busy", text=self._doing(errand), detail=self._then(), since_s=errand.began_s)
        if self.switch.is_paused:
            return Status(code="paused", text="Sharing is paused", detail=IDLE_PAUSED, since_s=self.switch.since_s)
        if not snapshot.is_registered:
            return Status(code="starting", text="Starting", detail=self._starting(), since_s=snapshot.started_s)
        if not snapshot.offers:
            return Status(code="waiting", text="Waiting for your approval", detail=NOTHING_APPROVED)
        idle_since_s = snapshot.done[0].ended_s if snapshot.done else snapshot.started_s
        return Status(code="online", text="Online", detail="Waiting for work.", since_s=idle_since_s)

    @property
    def stages(self) -> list[Stage]:
        """The steps of the work in hand."""
        errand = self.snapshot.errand
        if errand is None:
            return []
        steps = list(STAGES[errand.kind].items())
        place = next((n for n, (step, _) in enumerate(steps) if step is errand.step), len(steps) - 1)
        states = ["done"] * place + ["now"] + ["next"] * (len(steps) - place - 1)
        return [Stage(name=name, state=state) for (_, name), state in zip(steps, states, strict=True)]

    @property
    def progress(self) -> tuple[int, int] | None:
        """How far the present step is, of how much; None where it cannot be said."""
        errand = self.snapshot.errand
        if errand is None:
            return None
        if errand.step is Step.TRAINING:
            return errand.epoch, errand.epochs
        return (self._sent_bytes(errand), errand.num_bytes) if errand.step is Step.SENDING else None

    @property
    def offers(self) -> list[tuple[Offer, DataSummary]]:
        return [(offer, DataSummary.of(offer)) for offer in self.snapshot.offers]

    @property
    def waiting(self) -> list[Review]:
        return [review for review in self.reviews if review.code.verdict is Verdict.WAITING]

    @property
    def decided(self) -> list[Review]:
        return [review for review in self.reviews if review.code.verdict is not Verdict.WAITING]

    def to_json(self) -> dict[str, Any]:
        """`/status.json`. Times are Unix seconds."""
        snapshot, status = self.snapshot, self.status
        row = {
            "name": snapshot.name, "central": snapshot.central, "started_s": snapshot.started_s,
            "status": {"code": status.code, "text": status.text, "detail": status.detail, "since_s": status.since_s},
            "sharing": {"is_paused": self.switch.is_paused, "since_s": self.switch.since_s},
            "work": None if snapshot.errand is None else self._errand_row(snapshot.errand),
            "done": [self._errand_row(errand) for errand in snapshot.done],
            "offers": [
                {"task": offer.task, "fingerprint": offer.fingerprint, "summary": offer.summary}
                for offer in snapshot.offers
            ],
            "refused": dict(snapshot.refused),
            "policy": {
                "tasks": None if self.policy.tasks is None else list(self.policy.tasks),
                "limits": self.policy.limits.to_json(), "is_by_hand": self.policy.is_by_hand,
            },
            "approvals": [
                {**asdict(review.code), "before": review.before, "difference": list(review.difference)}
                for review in self.reviews
            ],
            "left": self._left_row(),
            "log": [{"at_s": line.at_s, "text": line.text} for line in self.lines],
        }
        return cast(dict[str, Any], finite(row))

    def _left_row(self) -> dict[str, Any]:
        left = self.left
        sendings = [
            {
                "at_s": sending.at_s, "what": sending.what, "run": sending.run or None, "round": sending.round,
                "bytes": sending.num_bytes, "digest": sending.digest, "has_arrived": sending.has_arrived,
            }
            for sending in left.recent
        ]
        return {
            "since_s": left.since_s, "images": 0, "labels": 0, "params_bytes": left.params_bytes,
            "updates": left.num_updates, "other_bytes": left.other_bytes, "recent": sendings,
            "trouble": self.ledger_trouble,
        }

    def _errand_row(self, errand: Errand) -> dict[str, Any]:
        progress = self.progress if errand is self.snapshot.errand else None
        return {
            "task": errand.task, "kind": errand.kind.value, "run": errand.run, "round": errand.round,
            "rounds": errand.rounds, "step": errand.step.value, "epoch": errand.epoch, "epochs": errand.epochs,
            "received": dict(errand.received), "own": dict(errand.own), "progress": progress,
            "began_s": errand.began_s, "ended_s": errand.ended_s or None, "end": errand.end,
        }

    def _doing(self, errand: Errand) -> str:
        match errand.step:
            case Step.RECEIVING:
                return "Receiving the model"
            case Step.EVALUATING:
                return "Making the first params" if errand.kind is RoundKind.INIT else "Evaluating the model"
            case Step.TRAINING:
                return f"Training: epoch {min(errand.epoch + 1, errand.epochs)} of {errand.epochs}"
            case Step.SENDING:
                return f"Sending the update: {100 * self._sent_bytes(errand) // errand.num_bytes} %"

    def _then(self) -> str:
        return BUSY_PAUSED if self.switch.is_paused else ""

    def _starting(self) -> str:
        return "Joining the federation." if self.snapshot.offers else "Looking at what this site's data allow."

    def _sent_bytes(self, errand: Errand) -> int:
        """Of its update, as far as this machine has let it out; a part that was sent twice counts to its end only."""
        found = (s.num_bytes for s in self.left.recent if (s.what, s.assignment) == (PARAMS, errand.id))
        return min(next(found, 0), errand.num_bytes)


IDLE_PAUSED = "No new work is taken. The central node knows why."
NOTHING_APPROVED = "No task is offered before you approve one."
BUSY_PAUSED = "Sharing is paused: this is finished and sent, and nothing new is taken."


def round_text(errand: Errand) -> str:
    """`round 3 of 5`; the two that do not train have names."""
    if errand.kind is RoundKind.INIT:
        return "the first params"
    return "the last evaluation" if errand.kind is RoundKind.EVALUATE else f"round {errand.round} of {errand.rounds}"


def main_score(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """The one that a table shows: accuracy where there is one, else the first."""
    name = "accuracy" if "accuracy" in scores else next(iter(scores), None)
    return None if name is None else (name, scores[name])


def local_time(wall_s: float, now_s: float) -> str:
    """In this machine's zone, which is the reader's; with the date where it is not today's."""
    when, now = (datetime.fromtimestamp(s, UTC).astimezone() for s in (wall_s, now_s))
    return f"{when:%H:%M:%S}" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M:%S}"
