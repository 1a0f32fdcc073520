"""Whether the rows of a store agree with one another, and with the journal, which no accident changes unseen.

A journal entry is what the rows say, written a second time: so each is made again from the rows and compared. Every
run is read in one transaction, round by round: a store of weeks does not have to fit into memory. Nothing is changed.
`verification.py` looks at the database file and at the params files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from fednode.core import journal
from fednode.core.best import best_measure, num_trained
from fednode.core.journal import JournalRow, check_chain
from fednode.core.json import JsonObject
from fednode.core.params import Params
from fednode.core.records import Round, Run
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus, RunStatus, is_final
from fednode.errors import StoreDamaged
from fednode.store import clients, retention, rows, rules, schema

RESTORE = "restore the state dir from a backup"
NO_PARAMS = Params({"none": np.zeros(0, np.float32)})       # outcomes are compared without their params
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
Key = tuple[str, int, int]                                  # what was decided, round, attempt


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something of a store that is not as it should be."""

    check: str          # database | rows | journal | files
    told: str           # which file or run, and the two facts that clash
    fix: str = RESTORE


def row_faults(c: Connection) -> Iterator[Fault]:
    """Of every client and every run, oldest first."""
    for row in c.execute(select(schema.client)):
        yield from _unreadable(f"client {row.name!r}", clients.client_from, row)
    for row in c.execute(select(schema.run).order_by(schema.run.c.number)).all():
        unreadable = list(_unreadable(f"run #{row.number}", rows.run_from, row))
        yield from unreadable or _of_run(c, row, rows.run_from(row))


def _unreadable(what: str, read: Any, row: Any) -> Iterator[Fault]:
    try:
        read(row)
    except UNREADABLE as error:
        yield Fault(check="rows", told=f"{what}: its row cannot be read: {error}")


def _of_run(c: Connection, row: Any, run: Run) -> Iterator[Fault]:
    name = f"run #{run.number}"
    for column, meant in _columns_of_config(run).items():
        if (found := getattr(row, column)) != meant:
            yield Fault(check="rows", told=f"{name}: its config says {column} {meant!r}, its row {found!r}")
    attempts = []
    table = schema.round_
    of_run = select(table).where(table.c.run_id == run.id).order_by(table.c.number, table.c.attempt)
    for found in c.execute(of_run):
        unreadable = list(_unreadable(f"{name}, round {found.number}", rows.round_from, found))
        yield from unreadable
        attempts += [] if unreadable else [rows.round_from(found)]
    models = {m.round: m for m in c.execute(select(schema.model).where(schema.model.c.run_id == run.id))}
    kept = Kept(run=run, attempts=attempts, models=models, num_trained=_num_trained(c, run))
    for told in (*_of_rounds(kept), *_of_models(c, kept), *_of_clients(c, kept)):
        yield Fault(check="rows", told=f"{name}: {told}")
    for told in _of_journal(c, kept):
        yield Fault(check="journal", told=f"{name}: {told}")


def _columns_of_config(run: Run) -> dict[str, object]:
    """What is written twice: in the config, and in a column to search by."""
    config = run.config
    return {
        "task": config.task, "fingerprint": config.fingerprint, "seed": config.seed,
        "start_model": config.start_model, "config_sha256": run.config_sha256,
    }


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a run's rows say, without its clients."""

    run: Run
    attempts: Sequence[Round]           # by number and attempt
    models: dict[int, Any]              # rows, by round
    num_trained: int                    # rounds until it ends: all that were planned, or those until its patience ended
    by_key: dict[tuple[int, int], Round] = field(init=False)

    def __post_init__(self) -> None:
        by_key = {(round_.number, round_.attempt): round_ for round_ in self.attempts}
        object.__setattr__(self, "by_key", by_key)

    @property
    def committed(self) -> dict[int, Round]:
        return {r.number: r for r in self.attempts if r.status is RoundStatus.COMMITTED}


# --- rounds and models ----------------------------------------------------------------------------------


def _of_rounds(kept: Kept) -> Iterator[str]:
    numbers = [r.number for r in kept.attempts if r.status is RoundStatus.COMMITTED]
    if numbers != list(range(len(numbers))):
        yield f"its committed rounds are {numbers}, which are not all from 0 on, each once"
    live = [r for r in kept.attempts if r.status in rules.LIVE_ROUND]
    if len(live) > 1 or (live and live[0] is not kept.attempts[-1]):
        yield f"{rules.describe(live[0])} is {live[0].status}, and a later one was opened"
    status, last = kept.run.status, 1 + kept.num_trained
    if live and is_final(status):
        yield f"it is {status}, and {rules.describe(live[0])} is {live[0].status}"
    if status is RunStatus.COMPLETED and last not in numbers:
        yield f"it is completed, and its round {last}, the last, is not committed"
    for round_ in kept.attempts:
        if round_.kind is not (kind := _kind_of(round_.number, last)):
            yield f"{rules.describe(round_)} is of kind {round_.kind}, where {kind} is due"


def _num_trained(c: Connection, run: Run) -> int:
    """By its config, and where it has patience by what was measured."""
    config, measure = run.config, best_measure(run.config, run.metrics)
    if config.patience is None or measure is None:
        return config.rounds
    return num_trained(config, measure, retention.values_of(c, run), rows.last_committed(c, run.id))


def _kind_of(number: int, last: int) -> RoundKind:
    if number == 0:
        return RoundKind.INIT
    return RoundKind.TRAIN if number < last else RoundKind.EVALUATE


def _of_models(c: Connection, kept: Kept) -> Iterator[str]:
    for number, round_ in kept.committed.items():
        if (number in kept.models) is (round_.kind is RoundKind.EVALUATE):
            yield f"{rules.describe(round_)}, {round_.kind}, has {'a' if number in kept.models else 'no'} model"
    for number, model in kept.models.items():
        maker = kept.committed.get(number)
        if maker is None:
            yield f"model {model.id} is of round {number}, which is not committed"
        elif model.parent != maker.base_model:
            yield f"model {model.id} has the parent {model.parent!r}, its round began from {maker.base_model!r}"
        if model.parent and not _is_there(c, model.parent):
            yield f"model {model.id} has the parent {model.parent}, and there is no such model"
    for round_ in kept.attempts:
        before = kept.models.get(round_.number - 1)
        if before is not None and round_.base_model != before.sha256:
            yield f"{rules.describe(round_)} begins from {round_.base_model}, the round before made {before.sha256}"


def _is_there(c: Connection, sha256: str) -> bool:
    return c.execute(select(schema.model.c.id).where(schema.model.c.sha256 == sha256).limit(1)).first() is not None


# --- clients --------------------------------------------------------------------------------------------


def _of_clients(c: Connection, kept: Kept) -> Iterator[str]:
    for round_ in kept.attempts:
        table = schema.assignment
        found = c.execute(select(table).where(rows.key_of(table, round_))).all()
        if {row.client for row in found} != set(round_.cohort):
            yield f"{rules.describe(round_)} has {len(found)} assignments, and not those of its cohort"
        brought = schema.update
        updates = set(c.execute(select(brought.c.client).where(rows.key_of(brought, round_))).scalars())
        for row in found:
            told = _of_assignment(round_, row, row.client in updates)
            yield from (f"{rules.describe(round_)}, client {row.client!r}: {fact}" for fact in told)
        for client in updates - {row.client for row in found}:
            yield f"{rules.describe(round_)} has an update of {client!r}, who has no assignment"


def _of_assignment(round_: Round, row: Any, has_update: bool) -> Iterator[str]:
    try:
        status = rows.assignment_from(row).status
        if row.failure is not None:
            rows.failure_from(row.client, row.failure)
    except UNREADABLE as error:
        yield f"its assignment cannot be read: {error}"
        return
    is_reported = status is AssignmentStatus.REPORTED
    if is_reported and not has_update and not rules.makes_report(round_):
        yield "its assignment is reported, and there is no update"
    if has_update and not is_reported:
        yield f"there is an update, and its assignment is {status}"
    if (row.failure is not None) is not (status is AssignmentStatus.FAILED):
        yield f"its assignment is {status}, and has {'a' if row.failure is not None else 'no'} failure"
    if round_.status in (RoundStatus.CLOSED, RoundStatus.COMMITTED) and status not in rows.DONE:
        yield f"its assignment is {status}, and the round is {round_.status}"


# --- the journal ----------------------------------------------------------------------------------------


def _of_journal(c: Connection, kept: Kept) -> Iterator[str]:
    """The chain, each entry against the rows, then whether something was decided that has no entry."""
    table, previous, seen = schema.journal, None, set[Key]()
    for row in c.execute(select(table).where(table.c.run_id == kept.run.id).order_by(table.c.seq)):
        try:
            found = rows.journal_from(row)
            check_chain([found], previous)
            key = _key(found.entry)
            meant = _meant(c, kept, key)
        except StoreDamaged as error:
            yield f"{error.message}"
            return                      # nothing that follows can be believed
        except UNREADABLE as error:
            yield f"row {row.seq} of its journal cannot be read: {error}"
            return
        if found.entry != meant:
            yield _clash(found, meant)
        previous = found
        seen.add(key)
    for what, number, attempt in sorted(_due(kept) - seen):
        where = f" of round {number}" if what not in ("created", "ended") else ""
        yield f"its journal has no entry {what!r}{where}{f', attempt {attempt}' if attempt else ''}"


def _key(entry: JsonObject) -> Key:
    number, attempt = entry.get("round", 0), entry.get("attempt", 0)
    if not isinstance(number, int) or not isinstance(attempt, int):
        raise ValueError(f"{number!r}, {attempt!r} is no round")
    return (str(entry["what"]), number, attempt)


def _meant(c: Connection, kept: Kept, key: Key) -> JsonObject | None:
    """What the entry of that key says where the rows are right; None: they know of no such thing."""
    what, number, attempt = key
    if what == "created":
        return journal.created(kept.run)
    if what == "ended":
        return journal.run_ended(kept.run.status.value) if is_final(kept.run.status) else None
    if what == "model committed":
        maker, model = kept.committed.get(number), kept.models.get(number)
        return journal.model_committed(maker, model.sha256) if maker and model else None
    round_ = kept.by_key.get((number, attempt))
    if round_ is None:
        return None
    if what == "round opened":
        return journal.round_opened(round_)
    outcomes = rows.reported(c, round_, lambda client, path: NO_PARAMS)
    return journal.round_closed(round_, list(outcomes.values()))


def _clash(found: JournalRow, meant: JsonObject | None) -> str:
    what, number, _ = _key(found.entry)
    where = f"row {found.seq} of its journal, {what!r}"
    if meant is None:
        return f"{where} of round {number}: no row says so"
    names = [name for name in {**found.entry, **meant} if found.entry.get(name) != meant.get(name)]
    return f"{where}: it says {names[0]} {found.entry.get(names[0])}, the rows say {meant.get(names[0])}"


def _due(kept: Kept) -> set[Key]:
    """What must be in the journal by what the rows say."""
    due: set[Key] = {("created", 0, 0)} | {("model committed", number, 0) for number in kept.models}
    if is_final(kept.run.status):
        due.add(("ended", 0, 0))
    for round_ in kept.attempts:
        if round_.kind is RoundKind.INIT and not round_.cohort:
            continue                    # of a run that starts from a model: nobody was asked
        due.add(("round opened", round_.number, round_.attempt))
        is_cut_off = round_.status is RoundStatus.ABANDONED and is_final(kept.run.status)   # by a cancel, perhaps
        if round_.status is not RoundStatus.OPEN and not is_cut_off:
            due.add(("round closed", round_.number, round_.attempt))
    return due
