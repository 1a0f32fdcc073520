"""The store of a simulation and of quick tests: the rules of `sql.py` in plain Python, gone with the process.

It holds references, never copies: a cohort of thousands costs what its updates cost, until the round ends.
Of finished rounds only pooled metrics, changes, the last checkpoint, journal and events stay, so a report that
is repeated after its round has ended is RoundClosed here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fednode.core import journal
from fednode.core.best import best_pooled
from fednode.core.ids import make_id
from fednode.core.journal import JournalRow
from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics, Pooled
from fednode.core.params import Params, manifest_of
from fednode.core.pooling import pool
from fednode.core.records import (
    Assignment,
    Change,
    Checkpoint,
    Outcome,
    Position,
    Round,
    Run,
    RunConfig,
    State,
    by_client_name,
    changes_of,
    evaluations_of,
)
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus, RunStatus, is_final, move
from fednode.errors import RoundClosed
from fednode.ports import Clock
from fednode.store import events, rules
from fednode.store.events import Story
from fednode.store.records import Blob, Event
from fednode.wire.codec import encode


@dataclass(kw_only=True)
class _Round:
    """An attempt, its assignments and what was reported; emptied when it cannot matter any more."""

    record: Round
    budget_left_s: float
    assignments: dict[str, Assignment]
    reported: dict[str, Outcome] = field(default_factory=dict)

    def finish(self, status: RoundStatus, reason: str = "") -> None:
        new = move(rules.describe(self.record), self.record.status, status)
        self.record = replace(self.record, status=new, reason=reason)


@dataclass(kw_only=True)
class _Run:
    record: Run
    rounds: dict[tuple[int, int], _Round] = field(default_factory=dict)
    evaluations: dict[tuple[int, str], Metrics] = field(default_factory=dict)      # by model_round, client
    pooled: dict[int, tuple[Pooled, ...]] = field(default_factory=dict)            # by model_round
    changes: dict[int, dict[str, Change]] = field(default_factory=dict)            # by round, client
    journal: list[JournalRow] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    last_committed: int = -1
    last_kind: RoundKind | None = None

    @property
    def live(self) -> _Round | None:
        return next((r for r in self.rounds.values() if r.record.status in rules.LIVE_ROUND), None)

    def write(self, entry: JsonObject) -> None:
        self.journal.append(journal.next_row(self.journal[-1] if self.journal else None, entry))


class MemoryStore:
    """`ports.Store` and what fills it. One event loop's: no method waits, so each is one transaction."""

    def __init__(self, clock: Clock, on_event: Callable[[Event], None] | None = None) -> None:
        self._clock = clock
        self._on_event = on_event
        self._runs: dict[str, _Run] = {}
        self.events: list[Event] = []

    # --- runs ---------------------------------------------------------------------------------------

    async def create_run(self, config: RunConfig, metrics: tuple[Metric, ...]) -> Run:
        """A queued run. Raises NotFound where `config.start_model` is no run's last model."""
        start = self._start_state(config.start_model)
        run_id = make_id("run", int(self._clock.wall_s() * 1000), secrets.token_bytes(10))
        run = Run(id=run_id, number=len(self._runs) + 1, config=config, metrics=metrics)
        kept = self._runs[run_id] = _Run(record=run)
        kept.write(journal.created(run))
        self._tell(events.run_created(run))
        if start is not None:
            self._save_start(kept, start)
        return run

    async def run(self, run_id: str) -> Run:
        return self._run(run_id).record

    async def runs(self) -> list[Run]:
        return [kept.record for kept in self._runs.values()]

    async def move_run(
        self, run_id: str, status: RunStatus, reason: str = "", *, withdraw: bool = False
    ) -> Run:
        """Start, pause, resume or cancel. `withdraw`: take back what is unreported. Raises IllegalMove."""
        kept = self._run(run_id)
        old = kept.record.status
        kept.record = replace(kept.record, status=move(f"run #{kept.record.number}", old, status), reason=reason)
        if withdraw or is_final(status):
            self._turn(kept, (AssignmentStatus.WAITING, AssignmentStatus.LEASED), AssignmentStatus.WITHDRAWN)
        if status is RunStatus.RUNNING:
            self._turn(kept, (AssignmentStatus.WITHDRAWN,), AssignmentStatus.WAITING)
        if is_final(status):
            self._end(kept, reason)
        self._tell(events.run_moved(kept.record, old))
        return kept.record

    async def end_run(self, run_id: str, status: RunStatus, reason: str = "") -> None:
        rules.require_running(self._run(run_id).record)
        await self.move_run(run_id, status, reason)

    async def set_reason(self, run_id: str, reason: str) -> None:
        kept = self._run(run_id)
        if rules.may_wait(kept.record):
            kept.record = replace(kept.record, reason=reason)

    # --- the loop's verbs -----------------------------------------------------------------------------

    async def position(self, run_id: str) -> Position:
        kept = self._run(run_id)
        live, next_round = kept.live, kept.last_committed + 1
        attempts = [attempt for number, attempt in kept.rounds if number == next_round]
        return Position(
            checkpoint=kept.checkpoint, open_round=live.record if live else None,
            next_round=next_round, next_attempt=1 + max(attempts, default=0), last_kind=kept.last_kind,
            best=best_pooled(kept.record, kept.pooled, before=kept.checkpoint.round) if kept.checkpoint else None,
        )

    async def open_round(self, round_: Round) -> Round:
        kept = self._running(round_.run_id)
        if (live := kept.live) is not None:
            return live.record
        old = kept.rounds.get((round_.number, round_.attempt))
        rules.require_new_round(round_, old.record if old else None)
        opened = _Round(
            record=replace(round_, status=RoundStatus.OPEN), budget_left_s=round_.budget_s,
            assignments={name: _assignment(round_, name) for name in sorted(round_.cohort, key=str.encode)},
        )
        for earlier in kept.rounds.values():
            if rules.is_repeat(earlier.record, round_):
                _take_over(opened, earlier)
        kept.rounds[round_.number, round_.attempt] = opened
        kept.write(journal.round_opened(opened.record))
        self._tell(events.round_opened(opened.record))
        return opened.record

    async def outcomes(self, round_: Round) -> tuple[Outcome, ...]:
        kept = self._run(round_.run_id)
        reported = self._round(round_).reported.values()
        return tuple(sorted((_with_evaluation(kept, round_, o) for o in reported), key=by_client_name))

    async def close_round(self, round_: Round, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        kept = self._running(round_.run_id)
        return self._close(kept, self._round(round_), outcomes)

    async def commit_round(self, round_: Round, outcomes: Sequence[Outcome], state: State | None) -> None:
        kept, live = self._running(round_.run_id), self._round(round_)
        if live.record.status is RoundStatus.COMMITTED:
            return
        final = self._close(kept, live, outcomes)
        pooled = tuple(pool(kept.record.metrics, evaluations_of(final)))
        sha256 = kept.checkpoint.model_sha256 if kept.checkpoint else ""
        if state is not None:
            sha256 = self._save_checkpoint(kept, round_, state)
            kept.changes[round_.number] = changes_of(outcomes)
        if round_.kind is not RoundKind.INIT:
            kept.pooled[round_.model_round] = pooled
        live.finish(RoundStatus.COMMITTED)
        kept.last_committed, kept.last_kind = round_.number, round_.kind
        _forget_finished(kept)
        self._tell(events.round_committed(live.record, final, pooled, sha256))

    async def abandon_round(self, round_: Round, outcomes: Sequence[Outcome], reason: str) -> None:
        kept, live = self._running(round_.run_id), self._round(round_)
        if live.record.status is RoundStatus.ABANDONED:
            return
        final = self._close(kept, live, outcomes)
        live.finish(RoundStatus.ABANDONED, reason)
        self._tell(events.round_abandoned(live.record, final, reason))

    # --- reports ----------------------------------------------------------------------------------------

    async def report(self, round_: Round, outcome: Outcome, blob: Blob | None = None) -> None:
        """One client's outcome. The same again is fine; raises AlreadyReported, RoundClosed, Withdrawn."""
        live = self._round(round_)
        old = live.reported.get(outcome.client)
        is_same = old is not None and _is_same(old, outcome)
        try:
            is_news = rules.require_news(live.record, self._assignment(live, outcome.client), is_same=is_same)
        except RoundClosed:
            self._tell(events.late(live.record, outcome.client))
            raise
        if is_news:
            self._take(live, outcome)

    async def report_evaluation(self, round_: Round, client: str, metrics: Metrics) -> None:
        """What a client measured before it trains; the first one counts. In a round of kind `evaluate`: its report."""
        live = self._round(round_)
        if rules.makes_report(round_):
            return await self.report(round_, Outcome(client=client, evaluation=metrics))
        if rules.require_news(live.record, self._assignment(live, client), is_same=True):
            self._run(round_.run_id).evaluations.setdefault((round_.model_round, client), metrics)
        return None

    def report_progress(self, round_: Round, client: str, epoch: int, values: Mapping[str, float]) -> None:
        """Scores of a client's own model while it trains: told as an event of seq 0, not kept."""
        fields: dict[str, float | int | str] = {"round": round_.number, "client": client, "epoch": epoch}
        self._hear(0, Story(what="progress", run_id=round_.run_id, fields={**fields, "values": dict(values)}))

    # --- what the central node and tests ask ------------------------------------------------------------

    async def round(self, run_id: str, number: int, attempt: int) -> Round:
        try:
            return self._run(run_id).rounds[number, attempt].record
        except KeyError:
            raise rules.no_round(run_id, number, attempt) from None

    async def assignments(self, round_: Round) -> list[Assignment]:
        return list(self._round(round_).assignments.values())

    async def mark_leased(self, assignment: Assignment) -> None:
        live = self._run(assignment.run_id).rounds[assignment.number, assignment.attempt]
        now = live.assignments[assignment.client]
        if now.status in (AssignmentStatus.WAITING, AssignmentStatus.LEASED):
            leased = replace(now, status=AssignmentStatus.LEASED, deliveries=now.deliveries + 1)
            live.assignments[assignment.client] = leased

    async def budget_left_s(self, round_: Round) -> float:
        return self._round(round_).budget_left_s

    async def save_budget(self, round_: Round, left_s: float) -> None:
        self._round(round_).budget_left_s = left_s

    async def journal(self, run_id: str) -> tuple[JournalRow, ...]:
        return tuple(self._run(run_id).journal)

    async def pooled(self, run_id: str) -> dict[int, tuple[Pooled, ...]]:
        """The federation's metrics by model_round."""
        return dict(self._run(run_id).pooled)

    async def changes(self, run_id: str) -> dict[int, dict[str, Change]]:
        """By round, by client."""
        return dict(self._run(run_id).changes)

    # --- inside -------------------------------------------------------------------------------------------

    def _run(self, run_id: str) -> _Run:
        if run_id not in self._runs:
            raise rules.no_run(run_id)
        return self._runs[run_id]

    def _running(self, run_id: str) -> _Run:
        kept = self._run(run_id)
        rules.require_running(kept.record)
        return kept

    def _round(self, round_: Round) -> _Round:
        kept = self._run(round_.run_id).rounds.get((round_.number, round_.attempt))
        if kept is None:
            raise rules.no_round(round_.run_id, round_.number, round_.attempt)
        return kept

    def _assignment(self, live: _Round, client: str) -> Assignment:
        if client not in live.record.cohort:
            raise rules.no_assignment(live.record, client)
        # A finished round has forgotten its assignments; its status alone answers then.
        return live.assignments.get(client) or _assignment(live.record, client)

    def _turn(self, kept: _Run, old: tuple[AssignmentStatus, ...], new: AssignmentStatus) -> None:
        live = kept.live
        if live is None or live.record.status is not RoundStatus.OPEN:
            return
        for name, assignment in live.assignments.items():
            if assignment.status in old:
                live.assignments[name] = replace(assignment, status=new)

    def _end(self, kept: _Run, reason: str) -> None:
        if (live := kept.live) is not None:
            live.finish(RoundStatus.ABANDONED, reason)
        kept.write(journal.run_ended(kept.record.status.value))

    def _close(self, kept: _Run, live: _Round, given: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Freeze the outcomes where they are not frozen yet."""
        round_ = live.record
        if round_.status is not RoundStatus.OPEN:
            return tuple(live.reported[name] for name in sorted(round_.cohort, key=str.encode))
        reported = {name: _with_evaluation(kept, round_, outcome) for name, outcome in live.reported.items()}
        measured = {client: found for (of, client), found in kept.evaluations.items() if of == round_.model_round}
        final = rules.frozen(round_, reported, given, measured)
        for outcome in final:
            self._keep(live, outcome)
        live.finish(RoundStatus.CLOSED)
        kept.write(journal.round_closed(round_, final))
        self._tell(events.round_closed(live.record, final))
        return final

    def _take(self, live: _Round, outcome: Outcome) -> None:
        self._keep(live, outcome)
        num_bytes = manifest_of(outcome.update.params.held).num_bytes if outcome.update else 0
        self._tell(events.outcome_received(live.record, outcome, num_bytes))

    def _keep(self, live: _Round, outcome: Outcome) -> None:
        old = live.assignments[outcome.client]
        live.assignments[outcome.client] = replace(old, status=rules.status_after(outcome))
        live.reported[outcome.client] = outcome

    def _save_checkpoint(self, kept: _Run, round_: Round, state: State) -> str:
        sha256 = model_sha256(state.params)
        kept.checkpoint = Checkpoint(run_id=round_.run_id, round=round_.number, state=state, model_sha256=sha256)
        kept.write(journal.model_committed(round_, sha256))
        return sha256

    def _start_state(self, sha256: str) -> State | None:
        if not sha256:
            return None
        checkpoints = [kept.checkpoint for kept in self._runs.values()]
        for checkpoint in checkpoints:
            if checkpoint is not None and checkpoint.model_sha256 == sha256:
                return State(params=checkpoint.state.params)
        raise rules.no_model(sha256)

    def _save_start(self, kept: _Run, state: State) -> None:
        round_ = rules.start_round(kept.record)
        kept.rounds[0, 1] = _Round(record=round_, budget_left_s=0.0, assignments={})
        kept.last_committed, kept.last_kind = 0, round_.kind
        self._save_checkpoint(kept, round_, state)

    def _tell(self, story: Story) -> None:
        self.events.append(self._hear(len(self.events) + 1, story))

    def _hear(self, seq: int, story: Story) -> Event:
        event = Event(
            seq=seq, wall_s=self._clock.wall_s(), what=story.what, run_id=story.run_id, fields=story.fields
        )
        if self._on_event is not None:
            self._on_event(event)
        return event


def model_sha256(params: Params) -> str:
    """The sha256 of the canonical params file."""
    return hashlib.sha256(encode(params)).hexdigest()


def _assignment(round_: Round, client: str) -> Assignment:
    return Assignment(
        run_id=round_.run_id, number=round_.number, attempt=round_.attempt, client=client, kind=round_.kind
    )


def _take_over(opened: _Round, earlier: _Round) -> None:
    for name, outcome in earlier.reported.items():
        if outcome.update is not None and name in opened.assignments:
            opened.reported[name] = outcome
            opened.assignments[name] = replace(opened.assignments[name], status=AssignmentStatus.REPORTED)


def _with_evaluation(kept: _Run, round_: Round, outcome: Outcome) -> Outcome:
    """The evaluation that was posted on its own came first, so it counts."""
    return replace(outcome, evaluation=kept.evaluations.get((round_.model_round, outcome.client), outcome.evaluation))


def _forget_finished(kept: _Run) -> None:
    for round_ in kept.rounds.values():
        round_.assignments, round_.reported = {}, {}
    kept.evaluations = {}


def _is_same(old: Outcome, new: Outcome) -> bool:
    """Whether both brought the same: a failure, an evaluation alone, or an update of equal bytes."""
    if old.update is None or new.update is None:
        return (old.update is None) == (new.update is None) and (old.failure is None) == (new.failure is None)
    if old.update.num_examples != new.update.num_examples:
        return False
    return _same_bytes(old.update.params, new.update.params)


def _same_bytes(old: Params, new: Params) -> bool:
    if old.manifest != new.manifest:
        return False
    return all(np.ascontiguousarray(old[name]).tobytes() == np.ascontiguousarray(new[name]).tobytes() for name in old)
