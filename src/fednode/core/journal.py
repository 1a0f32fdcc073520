"""The journal: a run's decisions as a chain of hashes, without times, ids, restarts or order of arrival.

Two runs with the same seed, sites and outcomes have the same journal, served or simulated, killed or calm.
Every store writes these entries in the transaction of the decision itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fednode.core.json import Json, JsonObject, canonical_json
from fednode.core.records import Outcome, Round, Run, by_client_name
from fednode.errors import StoreDamaged

GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class JournalRow:
    """One decision. `hash` = sha256(previous hash + canonical JSON of `entry`)."""

    seq: int                    # from 1
    entry: JsonObject
    hash: str


def next_row(previous: JournalRow | None, entry: JsonObject) -> JournalRow:
    """The row that follows `previous`."""
    last_hash = GENESIS if previous is None else previous.hash
    digest = hashlib.sha256((last_hash + canonical_json(entry)).encode()).hexdigest()
    return JournalRow(seq=1 if previous is None else previous.seq + 1, entry=entry, hash=digest)


def check_chain(rows: Sequence[JournalRow], previous: JournalRow | None = None) -> None:
    """Raise StoreDamaged at the first row that is not what follows the row before it; the first follows `previous`."""
    for row in rows:
        if row != next_row(previous, row.entry):
            raise StoreDamaged(
                f"row {row.seq} of the journal is not what its hash says, or a row before it is missing",
                fix="somebody changed the store by hand: compare it with a backup",
            )
        previous = row


def created(run: Run) -> JsonObject:
    return {"what": "created", "config_sha256": run.config_sha256, "seed": run.config.seed}


def round_opened(round_: Round) -> JsonObject:
    return {
        "what": "round opened", "round": round_.number, "attempt": round_.attempt,
        "kind": round_.kind.value, "cohort": list(round_.cohort), "base_model": round_.base_model,
    }


def round_closed(round_: Round, outcomes: Sequence[Outcome]) -> JsonObject:
    """Outcomes in name order: who brought what, and who did not and why (the code, never the sentence)."""
    return {
        "what": "round closed", "round": round_.number, "attempt": round_.attempt,
        "outcomes": [_outcome(outcome) for outcome in sorted(outcomes, key=by_client_name)],
    }


def model_committed(round_: Round, model_sha256: str) -> JsonObject:
    return {"what": "model committed", "round": round_.number, "model_sha256": model_sha256}


def run_ended(status: str) -> JsonObject:
    return {"what": "ended", "status": status}


def _outcome(outcome: Outcome) -> Json:
    if outcome.failure is not None:
        return [outcome.client, outcome.failure.code.value]
    return [outcome.client, outcome.update.num_examples if outcome.update else None]
